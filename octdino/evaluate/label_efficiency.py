"""Label efficiency of each arm: the labeled patients with which the supervised arm reaches the same score."""

from typing import Any

import numpy as np
import pandas as pd

from octdino.config import Arm, EvaluateSettings
from octdino.config.names import CLINICAL
from octdino.data.schemas.evaluate_schemas import LABEL_EFFICIENCY
from octdino.evaluate.classifier_runs import Key
from octdino.evaluate.comparable_runs import TestSet
from octdino.evaluate.reference_pairs import reference_of
from octdino.evaluate.resampled_scores import interval_bounds
from octdino.stats.label_efficiency import as_patients, log_patients_needed

FROM_SCRATCH = "scratch-finetune"
SUPERVISED = ("scratch", "imagenet")  # inits that no self-supervised training made, in this order


def supervised_arm(reference: str, arms: set[str]) -> str | None:
    """Return the arm whose curve is read: scratch-finetune, else the supervised arm that there is; None for none.

    Of several it is `reference` if that is supervised, else one from scratch before one from ImageNet's weights.
    """
    found = sorted(
        (arm for arm in arms if arm != CLINICAL and Arm.named(arm).init in SUPERVISED),
        key=lambda arm: (arm != FROM_SCRATCH, arm != reference, SUPERVISED.index(Arm.named(arm).init), arm),
    )
    return found[0] if found else None


def label_efficiency_table(
    settings: EvaluateSettings, test: TestSet, metric: str, scores: dict[Key, np.ndarray],
    patients: dict[float, int | None],
) -> pd.DataFrame:  # fmt: skip
    """Return one row per arm but the supervised one, backbone, fraction and seed; see LABEL_EFFICIENCY.

    There is none where the supervised arm has fewer than two fractions of a backbone, or numbers of patients are
    unknown. The curve is read in every resample; a resample in which it does not reach the arm's score, or is above it
    everywhere, counts as beyond the curve's end, and an end of the interval may lie there. The curve of an arm is that
    of the supervised arm with which it is compared, see `octdino.evaluate.reference_pairs.reference_of`: an arm of
    published weights has a backbone of its own.

    Args:
        metric: the leading one.
        scores: float64 [C] of the leading metric of each classifier, over all its labels, in every resample.
        patients: number of labeled training patients by fraction.
    """
    reference = supervised_arm(settings.reference, {key.arm for key in scores})
    rows: list[dict[str, Any]] = []
    for key, score in scores.items():
        if reference is None or key.arm in (reference, CLINICAL) or not np.isfinite(score[0]):
            continue
        points = [
            (float(number), other)
            for fraction, number in sorted(patients.items())
            if number and (other := reference_of(key._replace(fraction=fraction), reference, scores))
        ]
        own, numbers = patients[key.fraction], np.array([number for number, _ in points])
        if own is None or len(set(numbers)) < 2:
            continue
        curve = np.stack([scores[other] for _, other in points])
        if not np.isfinite(curve[:, 0]).all():
            continue
        needed = log_patients_needed(numbers, curve, score)[None, :, None]
        low, high, resamples = interval_bounds(settings, test.patients, needed)
        where = {**key._asdict(), "fold": test.fold, "metric": metric, "reference": reference}
        where["reference_backbone"] = points[0][1].backbone
        counts = {"n_train_patients": own, "n_patients": test.patients, "n_resamples": int(resamples[0, 0])}
        rows.append({**where, "value": score[0], **counts})
        for name, value in (("reference", needed[0, 0, 0]), ("low", low[0, 0]), ("high", high[0, 0])):
            read = as_patients(float(value), numbers)
            column = "reference_patients" if name == "reference" else name
            rows[-1] |= {column: read.number, f"{name}_is": read.bound}
    return pd.DataFrame(rows, columns=[column.name for column in LABEL_EFFICIENCY])
