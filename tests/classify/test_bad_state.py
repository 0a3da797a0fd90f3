"""A state that does not fit a fine-tuning is passed over with a warning; the run starts again."""

import pytest
import torch

from octdino.errors import StoppedEarly
from octdino.training.signals import Stopper
from tests.classify.test_classify import SETTINGS as FINETUNE
from tests.classify.test_classify import run as classify
from tests.small import write_small_cohort

SHORT = FINETUNE.model_copy(update={"min_steps": [4], "lr": [1e-3, 3e-3], "epochs": 2, "precision": "float32"})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_small_cohort(tmp_path_factory.mktemp("cohort"), patients=12, exclusive=True)


@pytest.fixture(scope="module")
def undisturbed(store, tmp_path_factory):
    """Return the bytes of the classifier of a run that was not stopped."""
    out = tmp_path_factory.mktemp("undisturbed")
    classify("scratch-finetune", store, out, settings=SHORT)
    return (out / "classifier.safetensors").read_bytes()


def stopped(monkeypatch, call, *arguments):
    """Stop a run after its third step."""
    calls = iter(range(10**6))
    with monkeypatch.context() as patch:
        patch.setattr(Stopper, "asked", lambda self: "test" if next(calls) == 2 else None)
        with pytest.raises(StoppedEarly):
            call(*arguments)


CHANGES = {
    "no network": lambda state: state["training"].pop("network"),
    "no optimizer": lambda state: state["training"].pop("optimizer"),
    "no best": lambda state: state["training"].pop("best"),
    "another shape": lambda state: state["training"]["network"].update({"1.bias": torch.zeros(7)}),
    "a best of something else": lambda state: state["training"].update(best={"x": torch.zeros(1)}),
    "step far on": lambda state: state["training"].update(step=10**6),
    "best step far on": lambda state: state["training"].update(best_step=10**6),
    "score is text": lambda state: state["training"].update(best_score="high"),
    "another optimizer": lambda state: state["training"]["optimizer"].update(param_groups=[]),
    "no training": lambda state: state.pop("training"),
    "training is a list": lambda state: state.update(training=[]),
    "results of other candidates": lambda state: state.update(results=[{"lr": 1.0}]),
    "more results than candidates": lambda state: state.update(results=[{}, {}, {}]),
    "a chosen network of something else": lambda state: state.update(best={"x": torch.zeros(1)}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_finetuning_starts_again(store, undisturbed, tmp_path, monkeypatch, caplog, change):
    parts = tmp_path / "parts"
    stopped(monkeypatch, lambda: classify("scratch-finetune", store, parts, settings=SHORT))
    (path,) = (parts / "state").glob("step-*.pt")
    state = torch.load(path, weights_only=True)
    CHANGES[change](state)
    torch.save(state, path)
    classify("scratch-finetune", store, parts, settings=SHORT)
    assert f"{path}: " in caplog.text
    assert (parts / "classifier.safetensors").read_bytes() == undisturbed
