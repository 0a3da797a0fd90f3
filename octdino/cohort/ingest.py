"""The cohort stage: from tables and image files to manifest.csv, quarantine.csv, splits.csv and scans.h5."""

import json
import logging
import math
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from octdino import made_by
from octdino.cohort.duplicates import find_duplicates, split_groups
from octdino.cohort.exclusive import check_exclusive, exclusive_labels
from octdino.cohort.published_split import leak_attribute, leave_out_tested, without_tested
from octdino.cohort.registry import READERS
from octdino.cohort.scan_table import Quarantine, ScanTable
from octdino.cohort.split import check_splittable, external_splits, make_splits
from octdino.config.cohort import CohortSettings
from octdino.data.cohort_origin import NAME as ORIGIN
from octdino.data.cohort_origin import origin_text
from octdino.data.csv_io import write_table
from octdino.data.disk_space import SPARE, check_disk
from octdino.data.sampling_units import unit
from octdino.data.schemas.csv_schemas import MANIFEST, QUARANTINE, SPLITS
from octdino.data.store import content_hash, statistics
from octdino.data.store_writer import StoreWriter
from octdino.errors import UserError
from octdino.progress import progress
from octdino.scans.decode_pool import decode_scans

OUTPUTS = ("quarantine.csv", "splits.csv", "manifest.csv", ORIGIN, "scans.h5")

log = logging.getLogger("octdino.cohort")


def build_cohort(settings: CohortSettings, out: Path, workers: int = 1, test_only: bool = False) -> None:
    """Write the cohort's tables and store to the folder `out`; they appear when all of them are finished.

    Every image is decoded once, by `workers` processes, and streamed into the store: memory grows by some hundred
    bytes per scan only.

    Args:
        test_only: all patients are test, as of an external cohort; no split is made or read.

    Raises:
        UserError: one line naming the file, the row, the value and what is expected.
    """
    table = READERS[settings.name](settings)
    _check_not_empty(table.scans, table.quarantine)
    leaked = [leave_out_tested(table, settings.split)]
    if not test_only:
        check_splittable(table.scans, table.truth, settings.split, table.unlabeled)
    check_exclusive(table, settings)
    with _workspace(out) as folder:
        check_disk(
            folder, len(table.scans) * settings.image.channels * math.prod(settings.image.size), "scans.h5", SPARE
        )
        with StoreWriter(folder / "scans.h5", settings.image.channels, settings.image.size) as writer:
            scans = _decode(table, settings, workers, writer)
            scans = _without_odd_sizes(scans, table)
            scans = _without_duplicates(scans, table)
            scans, left_out = without_tested(scans, table, settings.split)
            leaked.append(left_out)
            _check_not_empty(scans, table.quarantine)
            splits = _splits(scans, table, settings, test_only)
            first = splits[splits["fold"] == 0]
            scans["split"] = scans["patient"].map(dict(zip(first["patient"], first["split"], strict=True)))
            keep = scans["position"].to_numpy(np.int64)
            attributes = _attributes(scans, table, writer.moments[keep], settings)
            writer.finish(keep, attributes | leak_attribute(leaked, settings.split))
        truth = table.truth.loc[scans.index]
        manifest = pd.concat([scans.assign(pixel_hash=scans["digest"])[MANIFEST.names], truth], axis=1)
        write_table(folder / "manifest.csv", manifest, MANIFEST)
        write_table(folder / "quarantine.csv", table.quarantine.table(), QUARANTINE)
        write_table(folder / "splits.csv", splits, SPLITS)
        (folder / ORIGIN).write_text(origin_text(settings, manifest["path"].tolist()), encoding="utf-8")
    labeled = int(truth.notna().any(axis=1).sum())
    log.info("%s: %d rows refused: %s", out, len(table.quarantine.rows), _reasons(table.quarantine) or "none")
    patients = {"known": f"{manifest['patient'].nunique()}", "unknown": "unknown", "none": "no"}[table.patients]
    log.info("%s: %d scans of %s patients, %d labeled", out, len(manifest), patients, labeled)
    if warning := unit(table.patients).warning:
        log.log(logging.WARNING if table.patients == "unknown" else logging.INFO, "%s: %s", out, warning)


def _splits(scans: pd.DataFrame, table: ScanTable, settings: CohortSettings, test_only: bool) -> pd.DataFrame:
    """Return splits.csv."""
    if test_only:
        return external_splits(scans)
    return make_splits(scans, table.truth.loc[scans.index], settings.split, table.unlabeled)


@contextmanager
def _workspace(out: Path) -> Iterator[Path]:
    """Yield a temporary folder in `out` whose files move to `out` together at the end; remains of a killed run go."""
    folder = out / ".partial"
    if folder.exists():
        shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True)
        yield folder
        for name in OUTPUTS:  # never an old table beside a new store
            (out / name).unlink(missing_ok=True)
        for name in OUTPUTS:
            (folder / name).replace(out / name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _decode(table: ScanTable, settings: CohortSettings, workers: int, writer: StoreWriter) -> pd.DataFrame:
    """Write the images to the store; return the accepted scans with position in the store, digest, width and height."""
    scans = table.scans
    read = decode_scans(scans["path"].tolist(), table.image_source(), settings.image, workers)
    decoded_scans = progress(read, len(scans), "reading scans", "scan")
    found: list[dict[str, Any]] = []
    for scan, decoded in zip(scans[["scan_id", "table_path", "row", "flags"]].itertuples(), decoded_scans, strict=True):
        if decoded.image is None:
            _refuse(table.quarantine, scan, decoded.reason, decoded.detail)
            continue
        writer.append(decoded.image, str(scan.scan_id), decoded.moments, decoded.box)
        width, height = decoded.size
        flags = f"{scan.flags} {decoded.flags}".strip()
        record = {"index": scan.Index, "position": len(found), "digest": decoded.digest, "flags": flags}
        found.append(record | {"width": width, "height": height})
    columns = ["index", "position", "digest", "flags", "width", "height"]
    extra = pd.DataFrame(found, columns=columns).set_index("index")
    return scans.drop(columns="flags").loc[extra.index].join(extra)


def _without_odd_sizes(scans: pd.DataFrame, table: ScanTable) -> pd.DataFrame:
    """Quarantine scans of another size than the most frequent one, such as fundus images named by a wrong row."""
    if not table.one_size or scans.empty:
        return scans
    sizes = Counter(zip(scans["width"].tolist(), scans["height"].tolist(), strict=True))
    width, height = sizes.most_common(1)[0][0]
    odd = (scans["width"] != width) | (scans["height"] != height)
    for scan in scans[odd].itertuples():
        detail = f"{scan.width} x {scan.height} pixels, the cohort's scans have {width} x {height}"
        if scan.width == scan.height:
            detail += "; a square image is a fundus photograph"
        _refuse(table.quarantine, scan, "wrong_size", detail)
    same: pd.DataFrame = scans[~odd]
    return same


def _without_duplicates(scans: pd.DataFrame, table: ScanTable) -> pd.DataFrame:
    """Quarantine duplicate scans of a patient; patients with a common scan become one `group`."""
    found = find_duplicates(scans, table.truth)
    for scan in scans.loc[list(found.dropped)].itertuples():
        kept = scans.loc[found.dropped[int(str(scan.Index))]]
        _refuse(table.quarantine, scan, "duplicate_pixels", f"the same pixels as {kept['path']}, which is kept")
    scans = scans.drop(index=list(found.dropped))
    for flag, indices in (("shared_pixels", found.shared), ("label_clash", found.clash)):
        chosen = sorted(indices)
        scans.loc[chosen, "flags"] = [f"{flags} {flag}".strip() for flags in scans.loc[chosen, "flags"]]
    scans["group"] = scans["patient"].map(split_groups(scans["patient"].tolist(), scans["digest"].tolist()))
    return scans


def _attributes(scans: pd.DataFrame, table: ScanTable, moments: np.ndarray, settings: CohortSettings) -> dict[str, Any]:
    """Return the store's attributes: the same images and settings give the same bytes at any location."""
    train = (scans["split"] == "train").to_numpy()
    mean, std = statistics(moments[train] if train.any() else moments)  # an external cohort has none
    source = content_hash(settings.image, scans["path"], scans["digest"])
    kept = settings.plain(root=True, table=True, clinical=True, split={"file"})
    if settings.name != "phantom":
        del kept["phantom"]
    exclusive, origin = exclusive_labels(scans, table, settings)
    found = {"mean": mean, "std": std, "source": source, "settings": kept, "patients": table.patients}
    found |= {"decisions": json.dumps(table.decisions, ensure_ascii=False)} if table.decisions else {}
    return {**found, "exclusive": exclusive, "exclusive_from": origin, "octdino": made_by("cohort")}


def _refuse(quarantine: Quarantine, scan: Any, reason: str, detail: str) -> None:
    quarantine.add(str(scan.table_path), None if pd.isna(scan.row) else int(scan.row), reason, detail)


def _check_not_empty(scans: pd.DataFrame, quarantine: Quarantine) -> None:
    if scans.empty:
        first = f"; first: {quarantine.rows[0]['path']}: {quarantine.rows[0]['detail']}" if quarantine.rows else ""
        raise UserError(f"cohort: no scan is left; {len(quarantine.rows)} rows refused: {_reasons(quarantine)}{first}")


def _reasons(quarantine: Quarantine) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in Counter(r["reason"] for r in quarantine.rows).most_common())
