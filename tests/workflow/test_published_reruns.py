"""Which jobs an edit of an entry with published weights reruns: those that use what was edited, and what follows."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.conftest import Workflow

PAGE = {"report": 1}
END = {"evaluate": 1, "inference": 1, "audit": 1, "verdict": 1, **PAGE}
ARM = {"embed": 1, "classify": 1, "explain": 1, **END}  # own-linear
VARIANT = {"embed": 1, "classify": 1, "explain": 1}  # more-linear, after its pretraining


def configuration(folder: Path, **entry: Any) -> dict[str, Any]:
    """A Hugging Face folder as init, as the start of a pretraining, and as the network of an arm from scratch."""
    model = {"timm": "vit_tiny_patch16_224", "layout": "huggingface", "weights": str(folder / "own"), **entry}
    return {
        "models": {"own": model},
        "pretrain": {"backbones": ["own"], "variants": {"more": {"method": "simclr", "init": "own"}}},
        "classify": {"arms": ["scratch-linear", "own-linear", "more-linear"], "fractions": [1.0]},
        "evaluate": {"reference": "scratch-linear"},
    }


@pytest.fixture(scope="module")
def finished_flow(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    flow = Workflow(tmp_path_factory.mktemp("published"), stub=True)
    folder = flow.folder / "own"
    folder.mkdir()
    for name, values in (("config", {}), ("preprocessor_config", {"size": 224})):
        (folder / f"{name}.json").write_text(json.dumps(values))
    (folder / "model.safetensors").write_text("weights")
    flow.configure(configuration(flow.folder))
    done = flow.run("--cores", "2")
    assert done.returncode == 0, done.stderr
    assert not flow.rules()
    return flow


@pytest.fixture
def flow(finished_flow: Workflow) -> Iterator[Workflow]:
    """The finished run; afterwards, its configuration and the files of its model are as they were."""
    paths = [finished_flow.folder / "config.yaml", *(finished_flow.folder / "own").iterdir()]
    before = {path: path.read_bytes() for path in paths}
    yield finished_flow
    for path, content in before.items():
        path.write_bytes(content)


def test_commands_name_the_weights_alone(flow: Workflow) -> None:
    flags = [call.split() for call in flow.calls() if "--model.weights" in call]
    assert {call[0] for call in flags} == {"pretrain", "embed", "explain"}
    for call in flags:
        assert call[call.index("--model.weights") + 1] == str(flow.folder / "own/model.safetensors")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"input_size": 64}, ARM),
        ({"mean": [0.5], "std": [0.5]}, ARM),
        ({"license": "CC0"}, {"pretrain": 1, **ARM, "embed": 2, "classify": 2, "explain": 2}),
        (
            {"layout": "timm", "weights": "own/model.safetensors"},
            {"pretrain": 1, **ARM, "embed": 2, "classify": 2, "explain": 2},
        ),
    ],
)
def test_an_edited_setting_reruns_what_uses_it(flow: Workflow, entry: dict[str, Any], expected: dict[str, int]) -> None:
    flow.configure(configuration(flow.folder, **entry))
    assert flow.rules() == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("preprocessor_config", ARM),
        ("config", {"pretrain": 1, **ARM, "embed": 2, "classify": 2, "explain": 2}),
    ],
)
def test_an_edited_file_of_a_hugging_face_folder_reruns_what_reads_it(
    flow: Workflow, name: str, expected: dict[str, int]
) -> None:
    path = flow.folder / f"own/{name}.json"
    before = path.read_text()
    path.write_text(json.dumps({"size": 64}))
    assert flow.rules() == expected
    path.write_text(before)
    assert not flow.rules()
