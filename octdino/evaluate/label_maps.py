"""Label maps of external validation: which internal labels an external one stands for, and how they are combined."""

from dataclasses import dataclass

import numpy as np

from octdino.errors import UserError
from octdino.stats.calibration import at_temperature


@dataclass(frozen=True)
class LabelMap:
    """External labels that are tested, each with the internal labels that it stands for: any of them.

    Attributes:
        internal: L internal labels, in the order of predictions.
        labels: M external labels.
        groups: for each external label the positions of its internal labels.
        left_out: external labels that are not tested.
    """

    internal: list[str]
    labels: list[str]
    groups: list[list[int]]
    left_out: list[str]

    @property
    def names(self) -> dict[str, list[str]]:
        """Return the internal labels per external label."""
        pairs = zip(self.labels, self.groups, strict=True)
        return {label: [self.internal[place] for place in group] for label, group in pairs}

    @property
    def unused(self) -> list[str]:
        """Return the internal labels that no external label stands for."""
        used = {place for group in self.groups for place in group}
        return [label for place, label in enumerate(self.internal) if place not in used]

    def truth(self, truth: np.ndarray) -> np.ndarray:
        """Return ground truth [N, M] of internal ground truth [N, L].

        It is 1 if any of the labels is present, 0 if all are known to be absent, else NaN.
        """
        columns = []
        for group in self.groups:
            own = truth[:, group]
            columns.append(np.where((own == 1).any(1), 1.0, np.where(np.isnan(own).any(1), np.nan, 0.0)))
        found: np.ndarray = np.stack(columns, axis=1).astype(np.float32)
        return found

    def probabilities(self, p: np.ndarray, exclusive: bool) -> np.ndarray:
        """Return the probability of any label of each group, float64 [N, M].

        Probabilities of classes that exclude each other add up; independent labels give 1 - (1 - p)(1 - q)...

        Args:
            p: float64 [N, L].
            exclusive: whether each scan has exactly one of the internal labels.
        """
        columns = []
        for group in self.groups:
            own = p[:, group]
            columns.append(own[:, 0] if len(group) == 1 else own.sum(1) if exclusive else 1 - np.prod(1 - own, axis=1))
        found: np.ndarray = np.clip(np.stack(columns, axis=1), 0, 1)
        return found

    def calibrated(self, p: np.ndarray, temperature: float | None, exclusive: bool) -> np.ndarray:
        """Return the same of probabilities at a temperature; NaN without one."""
        if temperature is None:
            return np.full((len(p), len(self.labels)), np.nan)
        return self.probabilities(at_temperature(p, temperature, exclusive), exclusive)


def label_map(given: dict[str, list[str]], external: list[str], internal: list[str], where: str) -> LabelMap:
    """Return the map of an external cohort; labels of the same name stand for each other unless `given` differs.

    Args:
        given: `labels` of its settings.
        external, internal: the labels of the two cohorts.
        where: the external cohort's name, for messages.

    Raises:
        UserError: an unknown label, or none that can be tested.
    """
    for label, names in given.items():
        if label not in external:
            raise UserError(f"evaluate.external: {where}: labels: {label!r} is none of its labels: {_listed(external)}")
        if unknown := [name for name in names if name not in internal]:
            raise UserError(
                f"evaluate.external: {where}: labels.{label}: {unknown[0]!r} is no label of the internal cohort: "
                f"{_listed(internal)}"
            )
    names_of = {label: given.get(label, [label] if label in internal else []) for label in external}
    tested = [label for label in external if names_of[label]]
    if not tested:
        raise UserError(
            f"evaluate.external: {where}: none of its labels ({_listed(external)}) has the name of an internal one "
            f"({_listed(internal)}), and none is mapped; expected a map in labels"
        )
    groups = [[internal.index(name) for name in names_of[label]] for label in tested]
    return LabelMap(internal, tested, groups, [label for label in external if not names_of[label]])


def _listed(labels: list[str]) -> str:
    return ", ".join(labels) or "none"
