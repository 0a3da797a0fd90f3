"""Numbers of scans per split, from the finished cohort, a listing of its files, or as it is published."""

from dataclasses import dataclass
from pathlib import Path

from octdino.config import Config, known_scans
from octdino.config.cohort_size import labeled_share

FINISHED, LISTED, PHANTOM, PUBLISHED = "manifest.csv", "a listing of its files", "its settings", "its publication"


@dataclass(frozen=True)
class CohortFacts:
    """Sizes of a cohort that a run's time and disk depend on, of fold 0.

    Attributes:
        known_from: where they are from: one of the constants above.
        patients: None where not known.
        labels: number of labels.
        scans, train, val: scans, of which train and validate; test is the rest.
        labeled_train, labeled_val, labeled_test: those of them with labels.
    """

    known_from: str
    patients: int | None
    labels: int
    scans: int
    train: int
    val: int
    labeled_train: int
    labeled_val: int
    labeled_test: int

    @property
    def labeled(self) -> int:
        """The number of scans with labels."""
        return self.labeled_train + self.labeled_val + self.labeled_test


def cohort_facts(settings: Config, results: Path) -> CohortFacts:
    """Return the sizes of the cohort.

    Args:
        results: the folder of all results.

    Raises:
        UserError: a mistake in its files, as the cohort stage would say it.
    """
    folder = results / settings.cohort.results_name
    if (folder / "cohort" / "splits.csv").is_file() and (folder / "cohort" / "manifest.csv").is_file():
        return _of_finished(folder / "cohort" / "scans.h5")
    if settings.cohort.local:
        return _of_listing(settings)
    phantom = settings.cohort.name == "phantom"
    scans = known_scans(settings.cohort, folder) or 0
    labeled = round(scans * labeled_share(settings.cohort))
    patients = settings.cohort.phantom.patients if phantom else None
    return _shared_out(settings, PHANTOM if phantom else PUBLISHED, patients, 16 if phantom else 10, scans, labeled)


def _of_finished(store: Path) -> CohortFacts:
    from octdino.data.cohort_reader import read_cohort

    cohort = read_cohort(store, needs_store=False)
    split = cohort.split_of(0)
    counts = [int((split == name).sum()) for name in ("train", "val")]
    labeled = [int(((split == name) & cohort.labeled).sum()) for name in ("train", "val", "test")]
    patients = int(cohort.manifest["patient"].nunique()) if cohort.unit.patients else None
    return CohortFacts(FINISHED, patients, len(cohort.labels), len(cohort), *counts, *labeled)


def _of_listing(settings: Config) -> CohortFacts:
    from octdino.cohort.registry import READERS

    table = READERS[settings.cohort.name](settings.cohort)
    labeled = int(table.truth.notna().any(axis=1).sum())
    patients = int(table.scans["patient"].nunique()) if table.patients == "known" else None
    return _shared_out(settings, LISTED, patients, len(table.labels), len(table.scans), labeled)


def _shared_out(
    settings: Config, known_from: str, patients: int | None, labels: int, scans: int, labeled: int
) -> CohortFacts:
    """Divide the scans by the shares of the split."""
    split = settings.cohort.split
    test = 1 / split.folds if split.protocol == "crossval" else split.test
    parts = []
    for count in (scans, labeled):
        rest = [round(count * share) for share in (split.val, test)]
        parts.append([count - sum(rest), *rest])
    return CohortFacts(known_from, patients, labels, scans, *parts[0][:2], *parts[1])
