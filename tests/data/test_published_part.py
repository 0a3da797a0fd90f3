"""The published weights that a chain of pretraining runs began with, and their license."""

from typing import Any

import pytest

from octdino.data.schemas.published_part import continued_part
from octdino.errors import UserError

MIRAGE = {"from": "mirage", "sha256": "a" * 64, "layout": "mirage", "license": "CC BY-NC-ND 4.0"}
RUN = {"from": "results/pretrain/more", "cohort": "phantom", "sha256": "b" * 64, "fold": 0}


def part(start: Any) -> dict[str, Any] | None:
    found = continued_part({"name": "more", "start": start}, "backbone.json")
    return found and found.model_dump()


@pytest.mark.parametrize("start", [MIRAGE, {**RUN, "start": MIRAGE}, {**RUN, "start": {**RUN, "start": MIRAGE}}])
def test_weights_and_license_are_those_that_the_first_run_began_with(start: dict[str, Any]) -> None:
    assert part(start) == {
        "layout": "mirage", "license": "CC BY-NC-ND 4.0", "file": None, "sha256": "a" * 64,
        "data": "retinal OCT and SLO", "standardized_by": "cohort", "continued_by": "more",
    }  # fmt: skip


@pytest.mark.parametrize(
    "start", [None, RUN, {**RUN, "start": None}, {"from": "imagenet"}, {"from": "imagenet", "sha256": "a" * 64}]
)
def test_random_and_imagenet_weights_are_not_published_ones(start: Any) -> None:
    assert part(start) is None


def test_a_license_is_named_whatever_else_is_known() -> None:
    assert (part({"from": "imagenet", "license": "CC0"}) or {})["license"] == "CC0"
    assert (part({"from": "own", "sha256": None}) or {})["layout"] == "auto"


def test_a_damaged_license_is_one_line() -> None:
    with pytest.raises(UserError, match=r"backbone.json: start: license: 3 is not allowed"):
        part({**MIRAGE, "license": 3})
