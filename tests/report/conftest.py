"""Curves of pretraining runs are plotted once for all pages that show the same runs."""

from collections.abc import Iterator

import pytest

from octdino.report import training_section
from octdino.report.results_reader import Pretraining


@pytest.fixture(scope="session", autouse=True)
def known_curves() -> Iterator[dict[str, str]]:
    """Figures by what they show: plotting them takes half of a page's time. A test that clears it plots anew."""
    plot, known = training_section._plot_figure, {}

    def remembered(name: str, metrics: list[str], runs: list[Pretraining], styles: training_section.LineStyles) -> str:
        shown = [(run.method, run.backbone, run.run, run.history.to_csv()) for run in runs]
        key = repr((name, metrics, shown, styles))
        if key not in known:
            known[key] = plot(name, metrics, runs, styles)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_section, "_plot_figure", remembered)
        yield known
