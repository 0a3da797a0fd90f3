"""The tables of a finished run as data frames, for notebooks."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from octdino.data.cohort_reader import read_cohort
from octdino.data.csv_io import read_table
from octdino.data.schemas.column import Schema
from octdino.data.schemas.csv_schemas import COMPARISON, HISTORY, METRICS, QUARANTINE, SUBGROUPS
from octdino.data.schemas.evaluate_schemas import LABEL_EFFICIENCY, POWER
from octdino.errors import UserError
from octdino.inference.trained_runs import read_runs, without_stale


@dataclass(frozen=True)
class RunResults:
    """results/{cohort} of a run; `octdino.results` makes it. Each table is read when it is asked for."""

    root: Path

    @property
    def manifest(self) -> pd.DataFrame:
        """One row per scan, with patient, eye, visit, split and labels."""
        return read_cohort(self.root / "cohort" / "scans.h5", needs_store=False).manifest

    @property
    def quarantine(self) -> pd.DataFrame:
        """The refused rows, each with a reason."""
        return self._table("cohort/quarantine.csv", QUARANTINE)

    @property
    def metrics(self) -> pd.DataFrame:
        """One row per arm, backbone, fraction, seed, label and metric, with interval."""
        return self._table("evaluate/metrics.csv", METRICS)

    @property
    def comparison(self) -> pd.DataFrame:
        """Paired differences to the reference arm, with interval and adjusted p."""
        return self._table("evaluate/comparison.csv", COMPARISON)

    @property
    def subgroups(self) -> pd.DataFrame:
        """The leading metric per subgroup."""
        return self._table("evaluate/subgroups.csv", SUBGROUPS)

    @property
    def label_efficiency(self) -> pd.DataFrame:
        """The labeled patients with which the supervised arm reaches each arm's score, with interval."""
        return self._table("evaluate/label_efficiency.csv", LABEL_EFFICIENCY)

    @property
    def power(self) -> pd.DataFrame:
        """The test patients with which a difference that matters would be shown, per pair of arms."""
        return self._table("evaluate/power.csv", POWER)

    @property
    def histories(self) -> pd.DataFrame:
        """One row per epoch of each pretraining run, with method, backbone, run and the columns of history.csv."""
        found = []
        for path in sorted(self.root.glob("pretrain/*/*/*/history.csv")):
            *_, method, backbone, run = path.parent.parts
            table = read_table(path, HISTORY)
            table.insert(0, "run", run)
            table.insert(0, "backbone", backbone)
            table.insert(0, "method", method)
            found.append(table)
        return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["method", "backbone", "run"])

    @property
    def predictions(self) -> pd.DataFrame:
        """Predictions of all classifiers, with arm, backbone, fraction, fold, seed and the columns of predictions.csv.

        Classifiers of an earlier configuration, which the last evaluation does not contain, are left out.
        """
        found = []
        for run in without_stale(read_runs(self.root)):
            metadata, table = run.predictions.metadata, run.predictions.table.copy()
            for place, name in enumerate(("arm", "backbone", "fraction", "fold", "seed")):
                table.insert(place, name, getattr(metadata, name))
            found.append(table)
        return pd.concat(found, ignore_index=True)

    def _table(self, name: str, schema: Schema) -> pd.DataFrame:
        return read_table(self.root / name, schema)


def open_results(folder: str | Path) -> RunResults:
    """Return the tables of results/{cohort}.

    Raises:
        UserError: it is not such a folder.
    """
    root = Path(folder)
    if not (root / "cohort" / "manifest.csv").is_file():
        raise UserError(f"{root}: no cohort/manifest.csv; expected a cohort's results/{{cohort}}")
    return RunResults(root)
