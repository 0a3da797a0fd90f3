"""A stage that records its arguments in place of running."""

import sys
from typing import Any

import pytest


class Called:
    """A mock of a stage's function that records its arguments."""

    def __init__(self, raises: BaseException | None = None) -> None:
        self.args: tuple[Any, ...] = ()
        self.named: dict[str, Any] = {}
        self.raises = raises

    def __call__(self, *args: Any, **named: Any) -> None:
        self.args, self.named = args, named
        if self.raises:
            raise self.raises


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace a stage's function: `stage("octdino.pretrain", "pretrain")`."""

    def replace(module: str, name: str, raises: BaseException | None = None) -> Called:
        called = Called(raises)
        stand_in = type(sys)(module)
        setattr(stand_in, name, called)
        monkeypatch.setitem(sys.modules, module, stand_in)
        return called

    return replace
