"""Label maps of external validation: which internal labels an external one stands for, and how they are combined."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from octdino.config.external import mapped_labels
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
        unused: internal labels that are compared (`evaluate.labels`), and that no external label stands for.
    """

    internal: list[str]
    labels: list[str]
    groups: list[list[int]]
    left_out: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    @classmethod
    def same(cls, internal: list[str], labels: list[str]) -> Self:
        """Return the map in which each of `labels` stands for the internal label of its name."""
        return cls(internal, labels, [[internal.index(label)] for label in labels])

    @property
    def names(self) -> dict[str, list[str]]:
        """Return the internal labels per external label."""
        pairs = zip(self.labels, self.groups, strict=True)
        return {label: [self.internal[place] for place in group] for label, group in pairs}

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


def label_map(
    configured: dict[str, list[str]], external: list[str], internal: list[str], where: str,
    compared: list[str] | None = None,
) -> LabelMap:  # fmt: skip
    """Return the map of an external cohort, see `octdino.config.external.mapped_labels`.

    Args:
        configured: `labels` of its settings.
        external, internal: the labels of the two cohorts.
        where: the external cohort's name, for messages.
        compared: `evaluate.labels`; None: all internal labels.

    Raises:
        UserError: an unknown label, or none that can be tested.
    """
    for label, names in configured.items():
        if label not in external:
            raise UserError(f"evaluate.external: {where}: labels: {label!r} is none of its labels: {_listed(external)}")
        if unknown := [name for name in names if name not in internal]:
            raise UserError(
                f"evaluate.external: {where}: labels.{label}: {unknown[0]!r} is no label of the internal cohort: "
                f"{_listed(internal)}"
            )
    names_of = mapped_labels(configured, external, internal, compared)
    if not names_of:
        among = "" if compared is None else f" among evaluate.labels ({_listed(compared)})"
        raise UserError(
            f"evaluate.external: {where}: none of its labels ({_listed(external)}) has the name of an internal one "
            f"({_listed(internal)}){among}, and none is mapped; expected a map in labels"
        )
    used = {name for names in names_of.values() for name in names}
    return LabelMap(
        internal=internal,
        labels=list(names_of),
        groups=[[internal.index(name) for name in names] for names in names_of.values()],
        left_out=[label for label in external if label not in names_of],
        unused=[label for label in internal if label not in used and (compared is None or label in compared)],
    )


def _listed(labels: list[str]) -> str:
    return ", ".join(labels) or "none"
