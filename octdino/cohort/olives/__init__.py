"""Reader of OLIVES in its three published forms, selected by the files below root.

Prabhushankar et al., OLIVES Dataset: Ophthalmic Labels for Investigating Visual Eye Semantics, NeurIPS 2022 Datasets
and Benchmarks; https://doi.org/10.5281/zenodo.7105232. The three are two tables over an image tree (unpacked, in the
archives as they are downloaded, or part of each), the tables of the VIP Cup 2023 over the same tree, and the parquet
shards of gOLIVES/OLIVES_Dataset on Hugging Face.
"""

import logging

from octdino.cohort.archives import open_archives
from octdino.cohort.file_index import FileIndex
from octdino.cohort.olives.biomarker_tables import read_tables
from octdino.cohort.scan_table import ScanTable
from octdino.config.cohort import CohortSettings
from octdino.data.olives_names import BIOMARKERS, CLINICAL_TABLE, LABEL_TABLE, PATH, VIP_CLINICAL, VIP_LABELS

__all__ = ["BIOMARKERS", "CLINICAL_TABLE", "LABEL_TABLE", "PATH", "read_olives"]

log = logging.getLogger("octdino.cohort")


def read_olives(settings: CohortSettings) -> ScanTable:
    """Read labeled scans in the order of the label table, then the others in the order of the clinical table.

    The biomarker table takes precedence over the VIP Cup's, tables over parquet shards; `cohort.table` selects another.

    Raises:
        UserError: the root, a table or a column is missing, or an archive is damaged.
    """
    assert settings.root is not None, "the command checks it"
    file_index = FileIndex(settings.root)
    open_archives(file_index)
    labels = settings.table or file_index.has_table("cohort.table", LABEL_TABLE, VIP_LABELS)
    shards = sorted(file for file in file_index.files - file_index.archived if file.endswith(".parquet"))
    if labels is None and shards:
        from octdino.cohort.olives.parquet import read_shards  # pyarrow only where there are shards

        return read_shards(file_index.root, shards, settings.results_name)
    if shards:
        log.warning("%s: %d parquet shards are not read, because %s exists", file_index.root, len(shards), labels)
    labels = labels or file_index.find_table("cohort.table", LABEL_TABLE)
    clinical = settings.clinical or file_index.find_table("cohort.clinical", CLINICAL_TABLE, VIP_CLINICAL)
    return read_tables(file_index, labels, clinical, settings.results_name)
