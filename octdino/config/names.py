"""Checks of the names and numbers that become parts of paths below results/ and logs/: methods, arms, fractions, seeds.

    results/{cohort}/classify/{init}-{mode}/{backbone}/f{fraction}/fold{fold}-seed{seed}/

The patterns are those of the wildcards, so a name that passes here always fits its rule. Checks return the value, or
raise a ValueError with the value and what is expected.
"""

import re
from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from typing import Literal, NamedTuple, Self

from octdino.errors import short

METHOD_NAME = r"[A-Za-z0-9_][A-Za-z0-9_+]*"  # no dash: it separates {init}-{mode}
BACKBONE_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"  # timm's names have dots
CLINICAL = "clinical"  # the arm of the clinical baseline, which sees no image
MODES = ("linear", "knn", "mlp", "finetune")
NETWORK_MODES = ("linear", "finetune")  # their classifier is a network, for which saliency maps are possible
ThresholdRule = Literal["youden", "f1"]  # octdino.stats.thresholds
Readout = Literal["pooled", "layers"]  # octdino.models.readouts
AuditCheck = Literal[
    "patient", "eye", "volume", "published", "copy", "exposure", "statistics", "threshold", "weights", "external"
]
LONGEST_NAME = 80  # the names of logs hold two of them, and a file's name at most 255 bytes
FRACTION_TEXT = r"1|0\.[0-9]{0,5}[1-9]"
SMALLEST_FRACTION = 0.0001
LARGEST_SEED = 2**32 - 1  # what scikit-learn takes


def check_method_name(name: str) -> str:
    """Return the name of a pretraining method, of a variant or of an init, checked."""
    return _check_name(name, METHOD_NAME, "A-Z a-z 0-9 _ +, the first no +")


class Arm(NamedTuple):
    """An arm of the comparison, {init}-{mode}: where a classifier starts, and how it is trained.

    Attributes:
        init: scratch, imagenet, or the name of a pretraining method.
        mode: one of MODES.
    """

    init: str
    mode: str

    @classmethod
    def parse(cls, name: str, modes: Sequence[str] = MODES) -> Self:
        """Return the arm called `name`.

        Raises:
            ValueError: it is not {init}-{mode} with a mode among `modes`.
        """
        match = re.fullmatch(rf"({METHOD_NAME})-([a-z]+)", name)
        if not match or match[2] not in modes or len(match[1]) > LONGEST_NAME:
            raise ValueError(f"{short(name)} is not {{init}}-{' or {init}-'.join(modes)}")
        return cls(match[1], match[2])

    @classmethod
    def named(cls, name: str) -> Self:
        """Return the arm of a results table, unchecked; the clinical baseline, `clinical`, has no mode."""
        init, _, mode = name.rpartition("-")
        return cls(init, mode) if init else cls(name, "")


def has_own_backbone(arm: str, backbone: str) -> bool:
    """Whether an arm starts from published weights of its own network: its init and its backbone have one name."""
    return Arm.named(arm).init == backbone


def reference_backbone(arm: str, backbone: str, reference: str, known: Collection[str]) -> str:
    """Return the backbone on which the reference arm is compared with an arm on `backbone`.

    That is the arm's own. Networks with published weights are used by their arms alone: these are compared with the
    reference on the first of its backbones, by name. So is every arm, where the reference itself is on such a network.

    Args:
        known: backbones on which the reference was run.
    """
    if not known or backbone in known:
        return backbone
    everywhere = Arm.named(reference).init in ("scratch", "imagenet")  # run on all backbones that arms share
    alone = has_own_backbone(arm, backbone) or all(has_own_backbone(reference, each) for each in known)
    return min(known) if everywhere or alone else backbone


def check_arm(name: str, modes: Sequence[str] = MODES) -> str:
    """Return the name of an arm, checked."""
    Arm.parse(name, modes)
    return name


def check_backbone_name(name: str) -> str:
    """Return the name of a backbone, checked."""
    return _check_name(name, BACKBONE_NAME, "A-Z a-z 0-9 _ . + -, the first a letter, a digit or _")


def _check_name(name: str, pattern: str, allowed: str) -> str:
    if len(name) > LONGEST_NAME or not re.fullmatch(pattern, name):
        raise ValueError(
            f"{short(name)} cannot be a folder's name; expected 1 to {LONGEST_NAME} characters of {allowed}"
        )
    return name


def check_fraction(fraction: float) -> float:
    """Return a share of the labeled training patients, checked: its text in paths is exactly its value."""
    if not SMALLEST_FRACTION <= fraction <= 1 or float(fraction_text(fraction)) != fraction:
        raise ValueError(f"{fraction}; expected a share from {SMALLEST_FRACTION} to 1 with at most 6 decimals")
    return fraction


def fraction_text(fraction: float) -> str:
    """Return a fraction as it is written in paths and commands: 1, 0.1, 0.00025; never 0.10, 1.0 or 1e-05."""
    return f"{fraction:.6f}".rstrip("0").rstrip(".")


def check_seeds(seeds: Sequence[int]) -> None:
    """Check seeds of runs: from 0, each once."""
    if wrong := [seed for seed in seeds if not 0 <= seed <= LARGEST_SEED]:
        raise ValueError(f"{short(wrong[0])}; expected whole numbers from 0 to {LARGEST_SEED}")
    check_once(seeds)


def check_once(values: Sequence[Hashable]) -> None:
    """Check values that name runs: each once, or two jobs would write the same files."""
    if twice := [value for value, count in Counter(values).items() if count > 1]:
        raise ValueError(f"{short(twice[0])} is given {Counter(values)[twice[0]]} times; expected each once")
