"""A file that is not a checkpoint of the run is refused before the run is changed."""

import copy
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from octdino.training.checkpoint_reader import CheckpointError, check_form, check_optimizer, read_checkpoint
from octdino.training.checkpoints import RunState
from octdino.training.optimizers import make_optimizer, parameter_groups


def test_read_checkpoint_returns_what_was_saved(tmp_path: Path) -> None:
    torch.save({"step": 3, "weights": torch.arange(3)}, tmp_path / "a.pt")
    found = read_checkpoint(tmp_path / "a.pt")
    assert found["step"] == 3
    assert torch.equal(found["weights"], torch.arange(3))


def zip_of(path: Path, content: bytes, how: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("archive/data.pkl", content)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: zip_of(path, b"no pickle"), "not a checkpoint"),
        (lambda path: zip_of(path, b""), "not a checkpoint"),
        (lambda path: zip_of(path, bytes(10**6), zipfile.ZIP_DEFLATED), "its parts are compressed"),
        (lambda path: path.write_bytes(b"PK\x05\x06" + bytes(18)), "not a checkpoint"),
        (lambda path: path.write_text("text"), "not a checkpoint"),
        (lambda path: path.mkdir(), "not a file"),
        (lambda path: torch.save([1, 2], path), "it contains list, expected a dict"),
    ],
)
def test_file_that_is_not_a_checkpoint_raises_checkpoint_error(tmp_path: Path, write: Any, reason: str) -> None:
    write(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=reason):
        read_checkpoint(tmp_path / "a.pt")


FORM = {"a": torch.zeros(2, 3), "b": [1, 2.5, "text"], "c": {"d": True, "e": None}, "f": (1,)}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"a": torch.zeros(3, 2)}, r"x\.a is torch\.float32 \[3, 2\], expected torch\.float32 \[2, 3\]"),
        ({"a": torch.zeros(2, 3, dtype=torch.float64)}, r"x\.a is torch\.float64"),
        ({"a": torch.zeros(2, 3).to_sparse()}, r"x\.a is Tensor, expected"),
        ({"a": 1}, r"x\.a is int, expected torch\.float32 \[2, 3\]"),
        ({"b": [1, 2]}, r"x\.b has 2 entries, expected 3"),
        ({"b": [1, True, "text"]}, r"x\.b\.1 is bool, expected a number"),
        ({"b": "text"}, r"x\.b is str, expected list"),
        ({"c": {"d": True}}, r"x\.c: e is only in one of checkpoint and run"),
        ({"c": {"d": 1, "e": None}}, r"x\.c\.d is int, expected bool"),
        ({"f": [1]}, r"x\.f is list, expected tuple"),
        ({"g": 1}, r"x: g is only in one of checkpoint and run"),
    ],
)
def test_first_difference_of_form_is_named(change: dict[str, Any], line: str) -> None:
    check_form({**copy.deepcopy(FORM), "b": [7.5, -1, "other"]}, FORM, "x")
    with pytest.raises(CheckpointError, match=line):
        check_form(FORM | change, FORM, "x")


def stepped(kind: str) -> torch.optim.Optimizer:
    network = nn.Linear(3, 2)
    optimizer = make_optimizer(kind, parameter_groups(network))
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_optimizer_state_fits_only_same_kind_and_shapes(kind: str) -> None:
    saved = stepped(kind).state_dict()
    check_optimizer(saved, stepped(kind))
    check_optimizer(saved, make_optimizer(kind, parameter_groups(nn.Linear(3, 2))))
    other = "sgd" if kind == "adamw" else "adamw"
    for wrong in (stepped(other).state_dict(), None, {}, {**saved, "state": {9: {}}}, {**saved, "param_groups": []}):
        with pytest.raises(CheckpointError, match="optimizer"):
            check_optimizer(wrong, stepped(kind))
    with pytest.raises(CheckpointError, match=r"optimizer\.state\.0"):
        check_optimizer(saved, make_optimizer(kind, parameter_groups(nn.Linear(4, 2))))


REST = '"fingerprint": {}, "extended": false'


@pytest.mark.parametrize(
    "mark",
    ["", "[]", "null", "{}", '{"fingerprint": {}}', "\0", f'{{{REST}, "length": "0", "finished": false}}',
     f'{{{REST}, "length": 0, "finished": 0}}'],
)  # fmt: skip
def test_invalid_mark_file_starts_training_again(tmp_path: Path, mark: str, caplog: pytest.LogCaptureFixture) -> None:
    with RunState(tmp_path / "state", {}, 0).locked() as state:
        state.load()
        state.save({"step": 1}, 1)
    (tmp_path / "state" / "mark.json").write_text(mark)
    with RunState(tmp_path / "state", {}, 0).locked() as state:
        assert state.load() is None
        assert f"{tmp_path}/state/mark.json: " in caplog.text
        state.save({"step": 2}, 2)
    with RunState(tmp_path / "state", {}, 0).locked() as state:
        assert state.load() == {"step": 2}


def test_checkpoint_that_fails_the_check_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def check(saved: dict[str, Any]) -> None:
        if saved["step"] > 1:
            raise CheckpointError("step is too large")

    with RunState(tmp_path / "state", {}, 0, keep=3).locked() as state:
        state.load()
        for step in (1, 2, 3):
            state.save({"step": step}, step)
        assert state.load(check) == {"step": 1}
    for step in (2, 3):
        assert f"step-00000000{step}.pt: step is too large; resuming from an earlier checkpoint" in caplog.text
