"""Pairs of classifiers that are compared: each arm with the reference arm, and with the clinical baseline."""

from collections.abc import Collection

from octdino.config.names import CLINICAL, reference_backbone
from octdino.evaluate.classifier_runs import Key


def reference_of(key: Key, reference: str, classifiers: Collection[Key]) -> Key | None:
    """Return the classifier of the reference arm that a classifier is compared with; None if there is none.

    It has the same fraction and seed. Where the reference was not run with that seed, it is its mean over seeds, or its
    only seed. Its backbone is that of `octdino.config.names.reference_backbone`.
    """
    known = {other.backbone for other in classifiers if other.arm == reference}
    backbone = reference_backbone(key.arm, key.backbone, reference, known)
    return _nearest_seed(key._replace(arm=reference, backbone=backbone), classifiers)


def comparison_pairs(reference: str, classifiers: Collection[Key]) -> list[tuple[Key, Key]]:
    """Return every classifier with that of the reference arm, and with the clinical baseline, which has no backbone.

    See `reference_of`.
    """
    found = []
    for key in classifiers:
        if key.arm == CLINICAL:
            continue
        baseline = _nearest_seed(key._replace(arm=CLINICAL, backbone="none"), classifiers)
        for other in (reference_of(key, reference, classifiers), baseline):
            if other is not None and (other.arm, other.backbone) != (key.arm, key.backbone):
                found.append((key, other))
    return found


def _nearest_seed(wanted: Key, classifiers: Collection[Key]) -> Key | None:
    """Return the classifier that differs from `wanted` at most in its seed; None if there is none.

    The same seed goes before the mean over seeds, and that before the first seed.
    """
    same = [other for other in classifiers if other._replace(seed=wanted.seed) == wanted]
    return min(same, key=lambda one: (one.seed != wanted.seed, one.seed is not None, one.seed or 0), default=None)
