"""Families of arms: groups of tables and figures, in their order. A method names its own in its settings class."""

from collections.abc import Mapping
from typing import get_args

from octdino.config.method_settings import Family
from octdino.config.methods import METHODS
from octdino.config.names import Arm

SUPERVISED, PUBLISHED, CLINICAL = "supervised", "published weights", "clinical baseline"
FAMILIES: tuple[str, ...] = (SUPERVISED, PUBLISHED, *get_args(Family), CLINICAL)


def family_of(arm: str, pretrained: Mapping[str, str]) -> str:
    """Return the family of an arm, one of FAMILIES.

    Arms without pretraining are supervised: all that they learn they learn from labels. An init that is no pretraining
    run of these results comes with published weights, as imagenet does.

    Args:
        arm: its name, {init}-{mode}, or clinical.
        pretrained: the method of each pretraining run, by the name of the run (a method's own, or a variant's).
    """
    init, mode = Arm.named(arm)
    if not mode:
        return CLINICAL
    if init == "scratch":
        return SUPERVISED
    kind = METHODS.get(pretrained.get(init, init))
    return kind.family if kind else PUBLISHED


def family_rank(arm: str, pretrained: Mapping[str, str]) -> int:
    """Return the position of the arm's family among FAMILIES, to sort by."""
    return FAMILIES.index(family_of(arm, pretrained))
