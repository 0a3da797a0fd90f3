"""Checks before any job of what the settings name on disk, and of disk and memory; every dry run makes them.

Nothing heavy is imported, and nothing is read but names, sizes, and a table's header.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from octdino.config.cohort_size import image_bytes, known_scans, machine_memory, memory_bytes, store_bytes
from octdino.config.consistency import VALUES, lacking_values, without_values
from octdino.config.external_checks import check_label_maps, external_files, external_roots
from octdino.config.folder_glance import TableGlance, glance_at_table, only_images
from octdino.config.names import Arm
from octdino.config.published import published_notes
from octdino.data.column_names import names_of
from octdino.data.disk_space import SPARE, amount
from octdino.errors import UserError

if TYPE_CHECKING:
    from octdino.config import Config

# Of a user's table, they identify an eye or a visit; folders may do as well.
COLUMNS = {"eye": names_of("eye") | names_of("laterality"), "visit": names_of("visit")}


def check_before_run(settings: "Config", *, results: Path = Path("results")) -> None:
    """Check files and folders of the settings, what the cohort's table has, and the disk.

    Args:
        results: the folder of all results.

    Raises:
        UserError: one line that names the key, the value and what is expected.
    """
    check_paths(settings)
    folder = results / settings.cohort.results_name
    _check_starts(settings, folder)
    table = glance_at_table(settings.cohort)
    _check_table(settings, table)
    _check_values(settings, table)
    check_label_maps(settings, folder)
    if scans := known_scans(settings.cohort, folder):
        _check_disk(settings, scans, folder)


def notes_before_run(settings: "Config", *, results: Path = Path("results"), cluster: bool = False) -> list[str]:
    """Return what may not be meant, one line each: methods without arms, enlarged views, more scans than memory.

    Args:
        results: the folder of all results.
        cluster: whether jobs run on other machines, whose memory is not known here.
    """
    started = {Arm.parse(arm).init for arm in settings.classify.arms}
    notes = []
    if settings.classify.arms and (alone := [name for name in settings.pretrain.methods if name not in started]):
        notes.append(f"pretrain.methods: {', '.join(alone)}: no arm of classify.arms starts from it")
    stored = min(settings.cohort.image.size)
    if settings.pretrain.methods and (size := settings.pretrain.augment.global_size) > stored:
        notes.append(
            f"pretrain.augment.global_size: views of {size} px are enlarged from stored scans of {stored} px "
            "(cohort.image.size)"
        )
    notes += published_notes(settings)
    scans = known_scans(settings.cohort, results / settings.cohort.results_name)
    if scans and not cluster and settings.pretrain.methods:
        notes += _memory_notes(settings, scans)
    return notes


def check_paths(settings: "Config") -> None:
    """Check that configured files and folders exist; cohorts that are downloaded may be missing."""
    cohort = settings.cohort
    files = {
        "cohort.table": cohort.table_file,
        "cohort.clinical": cohort.clinical,
        "cohort.split.file": cohort.split.file,
    }
    files |= external_files(settings)
    weights = [
        (f"models.{name}.weights", path) for name, model in settings.models.items() for path in model.weights_files
    ]
    for key, each in {"cohort.root": cohort, **external_roots(settings)}.items():
        if each.local and each.root is not None:
            if not each.root.is_dir():
                raise UserError(f"{key}: no such folder: {each.root.absolute()}")
            if next(each.root.iterdir(), None) is None:
                raise UserError(f"{key}: empty folder: {each.root.absolute()}; expected the files of the cohort")
    for key, path in [*files.items(), *weights]:
        if path and not path.is_file():
            raise UserError(f"{key}: no such file: {path.absolute()}")


def _check_starts(settings: "Config", folder: Path) -> None:
    """Check that the earlier runs exist from which pretraining starts, but those that this workflow makes."""
    pretrain = settings.pretrain
    folds = ["all"] if pretrain.scope == "all" else list(range(settings.cohort.split.count))
    for name in pretrain.methods:
        variant = pretrain.variant(name)
        for backbone in pretrain.backbones_of(name):
            for fold, seed in [(fold, seed) for fold in folds for seed in pretrain.seeds]:
                start = variant.start_folder(backbone, fold, seed)
                if start is None or Path(start).absolute().is_relative_to((folder / "pretrain").absolute()):
                    continue
                if not (Path(start) / "backbone.safetensors").is_file():
                    raise UserError(
                        f"pretrain.variants.{name}.init: no backbone.safetensors in {Path(start).absolute()}; expected "
                        "the folder of a finished pretraining run"
                    )


def _check_table(settings: "Config", table: TableGlance | None) -> None:
    """Check that a table of images has rows for training, validation and test patients."""
    if table is None:
        return
    split = settings.cohort.split
    least = split.folds + 2 if split.protocol == "crossval" else 3
    if table.rows < (least if table.plain else 1):
        raise UserError(
            f"cohort.table: {table.path}: {table.rows} rows; expected {least} patients or more, to train, validate and "
            "test"
        )


def _check_values(settings: "Config", table: TableGlance | None) -> None:
    """Check that a user's scans can have the clinical values that methods compare them by."""
    cohort = settings.cohort
    needing = [name for name in settings.pretrain.methods if lacking_values(settings, name, set())]
    if cohort.name != "folder" or cohort.root is None or not needing:
        return
    if table is not None and table.plain:
        named = {value for value, names in COLUMNS.items() if names & table.columns}
        present, why = (table.columns & set(VALUES)) | named, f"{table.path} has no such column"
    elif table is None and cohort.table is None and only_images(cohort.root):
        present, why = set(COLUMNS), f"there is no table in {cohort.root}, and images have none"
    else:
        return  # headers of clinical files may have it
    for name in needing:
        if lacking := lacking_values(settings, name, present):
            raise UserError(without_values(settings, name, lacking, why))


def _check_disk(settings: "Config", scans: int, folder: Path) -> None:
    """Check that the store fits on the disk, unless it is there already."""
    if (folder / "cohort" / "scans.h5").exists():
        return
    below = folder
    while not below.is_dir():
        below = below.parent
    need, free = round(store_bytes(settings.cohort, scans) * (1 + SPARE)), shutil.disk_usage(below).free
    if need > free:
        raise UserError(
            f"{folder / 'cohort' / 'scans.h5'}: {amount(need)} needed for {_sized(settings, scans)}, {amount(free)} "
            f"free in {below.absolute()}; expected a smaller cohort.image.size, or another --directory"
        )


def _memory_notes(settings: "Config", scans: int) -> list[str]:
    """Return a note if the scans of one pretraining may not fit into this machine's memory: an estimate, no refusal."""
    need, have = memory_bytes(settings, scans, "pretrain"), machine_memory()
    if need <= have:
        return []
    return [
        f"pretrain: up to {amount(need)} of memory for {_sized(settings, scans)}, and this machine has {amount(have)}; "
        "a smaller cohort.image.size needs less"
    ]


def _sized(settings: "Config", scans: int) -> str:
    height, width = settings.cohort.image.size
    kilobytes = amount(image_bytes(settings.cohort.image))
    return f"{scans:,} scans of {height} x {width} px ({kilobytes} each)"
