"""Curves of pretraining runs are plotted once for all pages that show the same runs."""

from collections.abc import Iterator

import pytest

from octdino.report import training_section
from octdino.report.results_reader import Pretraining

KNOWN: dict[str, str] = {}  # figures by what they show


@pytest.fixture(scope="module", autouse=True)
def known_curves() -> Iterator[dict[str, str]]:
    """Figures of this process: plotting them takes half of a page's time. A test that clears them plots anew."""
    plot = training_section._plot_figure

    def remembered(name: str, metrics: list[str], runs: list[Pretraining], styles: training_section.LineStyles) -> str:
        shown = [(run.method, run.backbone, run.run, run.history.to_csv()) for run in runs]
        key = repr((name, metrics, shown, styles))
        if key not in KNOWN:
            KNOWN[key] = plot(name, metrics, runs, styles)
        return KNOWN[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_section, "_plot_figure", remembered)
        yield KNOWN
