"""Section of the page on attention and saliency maps: tables and figures of the explain stage."""

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from octdino.data.cohort_words import SCAN_WORDS, Words
from octdino.data.csv_io import read_table
from octdino.data.schemas.column import Schema
from octdino.data.schemas.csv_schemas import JACCARD, OVERLAP, RETRIEVAL
from octdino.data.schemas.metadata import ExplainMetadata, read_metadata
from octdino.report.conclusions import NOTHING, number, pair
from octdino.report.embedded_figures import Budget, FigureImage
from octdino.report.results_reader import explained_folders
from octdino.report.tables import Cell

BUDGET = 2_500_000  # characters of images; the page has to open on a phone
KINDS = {
    "labels": "Saliency maps of classifiers, per {label}",
    "maps": "Attention maps of networks",
    "retrieval": "Retrieval: nearest {scans}",
    "embedding": "Maps of {scans} (2D embedding)",
}
METRICS = {"pointing": "pointing game", "pixel_auroc": "pixel AUROC"}
PROTOCOLS = {
    "paper": "each object, best head", "largest": "largest class", "union": "all classes",
    "largest_void": "largest class, void counted", "union_void": "all classes, void counted",
}  # fmt: skip
NO_CELL = Cell(NOTHING, sort=-math.inf)


@dataclass(frozen=True)
class Table:
    """A sortable table with its caption; one with `folded` is shown on demand, under this title.

    Attributes:
        file: name of the table beside explain.json that it is made of.
    """

    caption: str
    heads: list[str]
    rows: list[list[Cell]]
    folded: str = ""
    file: str = "overlap.csv"


@dataclass(frozen=True)
class Explained:
    """The section of the page.

    Attributes:
        n: number of scans and patients, in words.
        folders: of the runs, below results/{cohort}.
        groups: heading and figures of each kind.
    """

    n: str
    tables: list[Table]
    groups: list[tuple[str, list[FigureImage]]]
    folders: list[str]


def explained(root: Path, words: Words = SCAN_WORDS, folders: list[Path] | None = None) -> Explained | None:
    """Return the section from results/{cohort}/explain/; None where nothing was explained.

    Args:
        folders: of the networks that are shown; None: all.

    Raises:
        UserError: a file cannot be read.
    """
    runs = [
        (folder, read_metadata(folder / "explain.json", ExplainMetadata, "explain"))
        for folder in (explained_folders(root) if folders is None else folders)
    ]
    if not runs:
        return None
    several = len({folder.name for folder, _ in runs}) > 1
    overlap, jaccard, retrieval = (
        pd.concat([_named(folder, name, schema, several) for folder, _ in runs], ignore_index=True)
        for name, schema in (("overlap", OVERLAP), ("jaccard", JACCARD), ("retrieval", RETRIEVAL))
    )
    first = runs[0][1]
    n = f"{first.n_scans} {words.scans} ({first.split})"
    n += f" of {first.n_patients} patients" if words.unit.patients else ""
    tables = [overlap_table(overlap, words), *label_tables(overlap, words), jaccard_table(jaccard, words)]
    tables.append(retrieval_table(retrieval, words))
    names = [folder.relative_to(root).as_posix() for folder, _ in runs]
    return Explained(n, [table for table in tables if table.rows], figure_images(root, runs, words), names)


def _named(folder: Path, name: str, schema: Schema, several: bool) -> pd.DataFrame:
    """Return a table of one network; with several runs, their names are appended to those of weights and arms."""
    table = read_table(folder / f"{name}.csv", schema)
    for column in {"init", "arm"} & set(table.columns) if several else ():
        known = table[column].fillna("") != ""
        table.loc[known, column] = table.loc[known, column] + f" {folder.name}"
    return table.astype({column.name: "float64" for column in schema if column.dtype == "Float64"})


def overlap_table(overlap: pd.DataFrame, words: Words = SCAN_WORDS) -> Table:
    """Return macro overlap: one row per network and map, chance first."""
    macro = overlap[overlap["label"] == "macro"]
    metrics = list(dict.fromkeys(macro["metric"]))
    rows = []
    for key, part in _runs(macro, ["init", "backbone", "arm", "map"]):
        init, backbone, arm, name = key
        by_metric = part.set_index("metric")
        count = _scans(part.iloc[0], words)
        rows.append([*_texts(arm or init, backbone, name), *(_value(by_metric, metric) for metric in metrics), count])
    if rows:
        levels = macro.groupby("metric")["chance"].first()
        chance = [Cell(number(levels[metric]), sort=float(levels[metric])) for metric in metrics]
        rows.insert(0, [*_texts("chance", NOTHING, "uniform"), *chance, NO_CELL])
    caption = (
        "Overlap of maps with ground-truth lesion masks, mean over "
        + words.labels
        + ": the lesions of each against its own map, "
        f"or against the one map that needs no classifier. Pointing game: share of {words.scans} whose "
        "highest value is in the "
        "lesion. Pixel AUROC: of the map's values, lesion against background. IoU: of the lesion with the part that "
        "holds this percentage of the map. Chance: a constant map. Small print: interval "
        f"over {words.unit.many}."
    )
    return Table(caption, ["weights or arm", "backbone", "map", *map(_words, metrics), _scans_head(words)], rows)


def label_tables(overlap: pd.DataFrame, words: Words = SCAN_WORDS) -> list[Table]:
    """Return pointing game and pixel AUROC per label, one column per network."""
    tables = []
    labeled = overlap[overlap["label"] != "macro"]
    for metric, name in METRICS.items():
        part = labeled[labeled["metric"] == metric]
        runs = _runs(part, ["init", "backbone", "arm", "map"])
        several = len(set(part["backbone"])) > 1
        rows = []
        for label in dict.fromkeys(part["label"]):
            own = part[part["label"] == label]
            cells = [_value(of_run[of_run["label"] == label].set_index("metric"), metric) for _, of_run in runs]
            chance = own["chance"].iloc[0]
            rows.append(
                [Cell(label, sort=label), _scans(own.iloc[0], words), Cell(number(chance), sort=float(chance)), *cells]
            )
        names = [
            (f"{arm or init} {name}", f" · {backbone}" if several else "") for (init, backbone, arm, name), _ in runs
        ]
        title = name[0].upper() + name[1:]
        caption = f"{title} of the lesions of each {words.label}. Few {words.scans}: intervals are wide."
        heads = [words.label, _scans_head(words), "chance", *map("".join, names)]
        tables.append(Table(caption, heads, rows, folded=f"{title} per {words.label}"))
    return tables


def jaccard_table(jaccard: pd.DataFrame, words: Words = SCAN_WORDS) -> Table:
    """Return one row per network and treatment of blobs, one column per protocol."""
    protocols = [name for name in PROTOCOLS if name in set(jaccard["protocol"])]
    rows = []
    for key, part in _runs(jaccard, ["init", "backbone", "map", "blobs"]):
        init, backbone, name, blobs = key
        by_protocol = part.set_index("protocol")
        objects = int(part["n_objects"].max())
        count = Cell(f"{part['n_images'].iloc[0]} / {objects}", sort=float(part["n_images"].iloc[0]))
        cells = [_value(by_protocol, protocol) for protocol in protocols]
        rows.append([*_texts(init, backbone, name), Cell(blobs, sort=blobs), *cells, count])
    caption = (
        "Jaccard index of masks from maps that need no label, against ground-truth objects (lesions; one biomarker is "
        "one object). Each object with its best head is the protocol of the DINO paper. "
        f"Small parts of masks are kept or removed. Small print: interval over {words.unit.many}."
    )
    heads = ["weights", "backbone", "map", "small parts", *(PROTOCOLS[name] for name in protocols)]
    return Table(caption, [*heads, "images / objects"], rows, file="jaccard.csv")


def retrieval_table(retrieval: pd.DataFrame, words: Words = SCAN_WORDS) -> Table:
    """Return one row per network: macro precision at each k, and the share of neighbors of the same patient."""
    if not words.unit.patients:
        retrieval = retrieval[~retrieval["metric"].str.startswith("same_patient")]
    shown = retrieval[(retrieval["label"] == "macro") | (retrieval["label"].fillna("") == "")]
    if set(retrieval["label"].fillna("")) - {""} and not (retrieval["label"] == "macro").any():  # a single label
        shown = retrieval
    metrics = sorted(set(shown["metric"]), key=lambda name: (name.split("@")[0], int(name.split("@")[1])))
    rows = []
    for (init, backbone), part in _runs(shown, ["init", "backbone"]):
        by_metric = part.set_index("metric")
        labeled = part[part["chance"].notna()]
        level = float(labeled["chance"].iloc[0]) if len(labeled) else math.nan
        count = (labeled if len(labeled) else part).iloc[0]
        rows.append(
            [
                Cell(init, sort=init),
                Cell(backbone, sort=backbone),
                *(_value(by_metric, metric) for metric in metrics),
                Cell(number(level), sort=-math.inf if math.isnan(level) else level),
                _scans(count, words),
            ]
        )
    same = (
        " Same patient: share of the k nearest that are of the same patient, where these are allowed."
        if words.unit.patients
        else ""
    )
    caption = (
        f"Retrieval by features. Precision: of the k nearest {words.scans}"
        f"{' of other patients' * words.unit.patients}, "
        f"the share with the query's {words.label}; mean over {words.labels}.{same} "
        f"Small print: interval over {words.unit.many}."
    )
    return Table(
        caption,
        ["weights", "backbone", *map(_words, metrics), "chance", _scans_head(words)],
        rows,
        file="retrieval.csv",
    )


def figure_images(
    root: Path, runs: list[tuple[Path, ExplainMetadata]], words: Words = SCAN_WORDS
) -> list[tuple[str, list[FigureImage]]]:
    """Return figures by kind: images within the page's budget, the rest by path."""
    budget, groups = Budget(BUDGET), []
    for kind, heading in KINDS.items():
        found = []
        for folder, metadata in runs:
            for figure in metadata.figures:
                path = folder / figure.file
                if path.name.startswith(kind) and path.is_file():
                    title = f"{metadata.init}, {metadata.backbone}, {folder.name}"
                    found.append(
                        FigureImage(title, path.relative_to(root).as_posix(), budget.embed(path), figure.caption)
                    )
        if found:
            groups.append((heading.format(label=words.label, scans=words.scans), found))
    return groups


def _runs(table: pd.DataFrame, keys: list[str]) -> list[tuple[tuple[str, ...], pd.DataFrame]]:
    """Return the rows of each network, random weights last, with empty text for missing values."""
    filled = table.assign(**{key: table[key].fillna("").astype(str) for key in keys})
    groups = [(tuple(map(str, key)), part) for key, part in filled.groupby(keys, sort=True)]
    return sorted(groups, key=lambda group: group[0][0].startswith("scratch"))


def _scans_head(words: Words) -> str:
    return f"{words.scans} / patients" if words.unit.patients else words.scans


def _scans(row: pd.Series, words: Words) -> Cell:
    """Return the number of scans, and of patients where they are known."""
    patients = f" / {row['n_patients']}" if words.unit.patients else ""
    return Cell(f"{row['n_scans']}{patients}", sort=float(row["n_scans"]))


def _texts(*words: str) -> list[Cell]:
    return [Cell(text, sort=text) for text in words]


def _value(table: pd.DataFrame, key: str) -> Cell:
    if key not in table.index:
        return NO_CELL
    value, low, high = (float(table[name].loc[key]) for name in ("value", "low", "high"))
    return Cell(number(value), "" if math.isnan(low) else pair(low, high), value)


def _words(metric: str) -> str:
    """Return iou@10 as "IoU at 10 %", precision@5 as "precision at 5"."""
    name, _, level = metric.partition("@")
    if name == "iou":
        return f"IoU at {level} %"
    return METRICS.get(metric, f"{name.replace('_', ' ')} at {level}")
