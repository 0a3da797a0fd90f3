"""Loss scale in float16: that of torch's GradScaler, with 1 as its lower bound."""

import pytest
import torch

from octdino.training import loss_scale
from octdino.training.loss_scale import LossScale

CPU = torch.device("cpu")


def test_scale_after_every_step_is_that_of_torchs_scaler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "GROWTH_INTERVAL", 3)
    made = LossScale(CPU, "float16")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=3)
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    for finite in (True, False, True, True, True, True, False, False, True, True, True, True, True, True, True):
        factor = 1.0 if finite else torch.inf
        gradients = []
        for scale in (made, scaler.scale):
            parameter.grad = None
            torch.autograd.backward(scale((parameter * torch.tensor([3.0, 4.0])).sum()) * factor)
            gradients.append(parameter.grad)
        scaler.unscale_(optimizer)
        scaler.update()
        parameter.grad = gradients[0]
        made.unscale([parameter])
        assert torch.equal(*gradients) or not finite
        norm = torch.linalg.vector_norm(gradients[0])
        assert bool(made.update(torch.ones(()), norm)) != finite
        assert made.position()["scale"].item() == scaler.get_scale()


def test_scale_does_not_fall_below_one_and_then_a_step_is_no_overflow() -> None:
    made, infinite = LossScale(CPU, "float16"), torch.tensor(torch.inf)
    found = [bool(made.update(torch.ones(()), infinite)) for _ in range(18)]
    assert found == [True] * 16 + [False] * 2
    assert made.position()["scale"] == 1


def test_a_loss_that_is_not_finite_is_no_overflow() -> None:
    made = LossScale(CPU, "float16")
    assert not made.update(torch.tensor(torch.nan), torch.tensor(torch.nan))
    assert made.position()["scale"] == 2.0**16


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_other_precisions_have_no_scale(precision: str) -> None:
    made, loss = LossScale(CPU, precision), torch.tensor(2.0)
    assert made(loss) is loss
    assert not made.update(loss, torch.tensor(torch.inf))
    assert made.position() == {}
    made.restore({"scale": torch.tensor(8.0), "steps": torch.tensor(1)})
    assert made.position() == {}


def test_restored_scale_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "GROWTH_INTERVAL", 2)
    first, second, one = LossScale(CPU, "float16"), LossScale(CPU, "float16"), torch.ones(())
    first.update(one, torch.tensor(torch.inf))
    first.update(one, one)
    second.restore(first.position())
    for _ in range(3):
        first.update(one, one)
        second.update(one, one)
        assert first.position() == second.position()
    assert first.position()["scale"] == 2.0**17
