"""Scores of an external cohort by a trained classifier of a results folder: scores.csv and scores.json.

Probabilities are those before calibration, so that label maps, temperature and thresholds are applied where they are
compared, and a changed label map scores no scan again.
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from octdino import made_by
from octdino.data.cohort_reader import Cohort, read_cohort
from octdino.data.csv_io import probability_column, write_table
from octdino.data.predictions import check_probabilities, read_predictions
from octdino.data.schemas.csv_schemas import EXTERNAL_SCORES
from octdino.data.schemas.external_metadata import ExternalScoresMetadata
from octdino.data.schemas.metadata import write_metadata
from octdino.errors import UserError
from octdino.inference.model_writer import checked_density, features_of
from octdino.inference.scan_model import Network
from octdino.inference.trained_network import open_classifier
from octdino.training.determinism import set_determinism

log = logging.getLogger("octdino.inference")


def score_external(classifier: Path, results: Path, store: Path, out: Path) -> None:
    """Write `out`/scores.csv and `out`/scores.json: probabilities and distances of all scans of an external cohort.

    Args:
        classifier: folder of a trained classifier.
        results: results/{cohort} of the cohort that it was trained on.
        store: scans.h5 of the external cohort, its tables beside it.

    Raises:
        UserError: a file is missing or damaged, the external images are prepared in another way, or the weights do not
            give the predictions of predictions.csv.
    """
    set_determinism(True)
    predictions = read_predictions(classifier)
    metadata = predictions.metadata
    cohort, external = read_cohort(results / "cohort" / "scans.h5"), read_cohort(store)
    opened = open_classifier(results, predictions)
    assert metadata.weights_sha256 is not None, "a classifier that was opened has weights"
    _check_image(external, opened.network)
    density, ood = checked_density(predictions, cohort, opened)
    probabilities = np.empty((len(external), len(metadata.labels)))
    distances = np.empty(len(external))
    for features, part in features_of(external, opened.network, np.arange(len(external))):
        probabilities[part] = opened.head(opened.network.part(features, opened.readout))
        distances[part] = density.distances(features)
    check_probabilities(probabilities, metadata.labels, str(out))
    found = ExternalScoresMetadata.parse(
        {
            "cohort": external.name, "source": external.source,
            **{name: getattr(metadata, name) for name in ("arm", "backbone", "fraction", "fold", "seed", "labels")},
            "exclusive": metadata.exclusive, "weights_sha256": metadata.weights_sha256,
            "ood_threshold": ood["threshold"], "accepted_test": ood["accepted_test"], "n_scans": len(external),
            "octdino": made_by("inference"),
        },
        f"{out}/scores.json",
    )  # fmt: skip
    table = external.manifest[["scan_id", "patient"]].reset_index(drop=True)
    table["out_of_distribution"] = distances / ood["threshold"]
    columns = [probability_column(label) for label in metadata.labels]
    table = pd.concat([table, pd.DataFrame(probabilities, columns=columns)], axis=1)
    write_table(out / "scores.csv", table, EXTERNAL_SCORES)
    write_metadata(out / "scores.json", found)
    flagged = float((distances > ood["threshold"]).mean())
    log.info("%s: %d scans of %s, %.0f %% out of distribution", out, len(external), external.name, 100 * flagged)


def _check_image(external: Cohort, network: Network) -> None:
    """Check that the external store was made with the image settings of the training store."""
    if external.image != network.input.image:
        raise UserError(
            f"{external.store}: made with the image settings {external.image.model_dump(mode='json')}; expected those "
            f"of the classifier, {network.input.image.model_dump(mode='json')}"
        )
