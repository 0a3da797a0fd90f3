"""The real tables, read once: the workbook takes seconds."""

from pathlib import Path

import pandas as pd
import pytest

from .forms import Real


@pytest.fixture(scope="package")
def real(shared_data: Path) -> Real:
    """The real tables at full size."""
    folder = shared_data / "olives"
    return Real(
        pd.read_csv(folder / "Biomarker_Clinical_Data_Images.csv"),
        pd.read_excel(folder / "Training_Unlabeled_Clinical_Data.xlsx"),
        pd.read_csv(folder / "Training_Biomarker_Data.csv"),
    )
