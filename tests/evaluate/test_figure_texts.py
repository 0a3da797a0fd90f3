"""No text of a figure covers another, however many arms there are."""

from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from octdino import plotting
from octdino.config import EvaluateSettings
from octdino.evaluate import evaluate
from octdino.report import training_section
from octdino.report.results_reader import _pretraining
from tests.results import write_arm, write_cohort, write_pretraining

INITS = ("scratch", "imagenet", "dino", "dinov2", "byol", "simclr", "moco", "vicreg", "supcon_bcva", "supcon_cst")
ARMS = [f"{init}-{mode}" for mode in ("linear", "finetune") for init in INITS]
ARMS = ["scratch-finetune", *(arm for arm in ARMS if arm != "scratch-finetune")]


def texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """The text that a figure shows, with its box in pixels."""
    figure.draw_without_rendering()
    left_out: set[Text] = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            left_out |= {tick.label1 for tick in ticks if not low - 1e-9 <= tick.get_loc() <= high + 1e-9}
        if not axes.get_visible():
            left_out |= set(axes.findobj(Text))
        if not axes.axison:
            left_out |= {*axes.xaxis.findobj(Text), *axes.yaxis.findobj(Text)}
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), Text.get_window_extent(text)) for text in found if text not in left_out]


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes share more than a pixel each way."""
    shared = []
    for (one, a), (other, b) in combinations(texts(figure), 2):
        both = Bbox.intersection(a, b)
        if both is not None and both.width > 1 and both.height > 1:
            shared.append((one, other))
    return shared


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """The figures that would be written in a test, by name."""
    found: dict[str, Figure] = {}

    def record(figure: Figure, name: str, description: str) -> str:
        found[name] = figure
        return f"<svg>{description}</svg>"  # the texts are measured without rendering

    monkeypatch.setattr(plotting, "svg", record)
    monkeypatch.setattr(training_section, "svg", record)
    return found


@pytest.mark.parametrize(("count", "fractions"), [(2, (1.0,)), (3, (0.1, 1.0)), (8, (0.1, 0.3, 1.0)), (20, (0.3, 1.0))])
def test_no_two_texts_of_a_figure_overlap(
    tmp_path: Path, drawn: dict[str, Figure], count: int, fractions: tuple[float, ...]
) -> None:
    write_cohort(tmp_path / "cohort")
    folders = [
        write_arm(tmp_path / "classify", tmp_path / "cohort", arm, fraction)
        for arm in ARMS[:count]
        for fraction in fractions
    ]
    evaluate(EvaluateSettings(resamples=100), tmp_path / "cohort" / "manifest.csv", folders, tmp_path / "evaluate")
    assert len(drawn) == 11
    assert {name: pairs for name, figure in drawn.items() if (pairs := overlaps(figure))} == {}
    if len(fractions) > 1:
        named = [words for words, _ in texts(drawn["label_efficiency"])]
        assert set(ARMS[:count]) <= set(named), "each line is named"


@pytest.mark.parametrize("methods", [1, 9])
def test_no_two_texts_of_training_curves_overlap(tmp_path: Path, drawn: dict[str, Figure], methods: int) -> None:
    names = ["dino", *(init for init in INITS[3:])][:methods]
    runs = [_pretraining(write_pretraining(tmp_path, name) / "backbone.json") for name in names]
    training_section.training_figures(runs)
    assert set(drawn) == {"training-learning", "training-features", "training-collapse"}
    assert {name: pairs for name, figure in drawn.items() if (pairs := overlaps(figure))} == {}


def test_overlapping_texts_would_be_found() -> None:
    figure = Figure()
    for x in (0.5, 0.51):
        figure.text(x, 0.5, "a name")
    assert overlaps(figure) == [("a name", "a name")]
