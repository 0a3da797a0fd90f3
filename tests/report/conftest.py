"""Curves of pretraining runs are plotted once for all pages that show the same runs."""

from collections.abc import Iterator

import pytest

from octdino.report import training_section
from octdino.report.results_reader import Pretraining

KNOWN: dict[tuple[str, str], str] = {}  # figures by their name and what they show
EXACT = ("test_browser", "test_methods", "test_report")  # modules that look at the curves; others show any


@pytest.fixture(scope="module", autouse=True)
def known_curves(request: pytest.FixtureRequest) -> Iterator[dict[tuple[str, str], str]]:
    """Figures of this process: plotting them takes half of a page's time. A test that clears them plots anew."""
    plot = training_section._plot_figure
    exact = request.module.__name__.rsplit(".", 1)[-1] in EXACT

    def remembered(name: str, metrics: list[str], runs: list[Pretraining], styles: training_section.LineStyles) -> str:
        if not exact and (alike := [figure for (other, _), figure in KNOWN.items() if other == name]):
            return alike[0]
        shown = [(run.method, run.backbone, run.run, run.history.to_csv()) for run in runs]
        key = name, repr((metrics, shown, styles))
        if key not in KNOWN:
            KNOWN[key] = plot(name, metrics, runs, styles)
        return KNOWN[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_section, "_plot_figure", remembered)
        yield KNOWN
