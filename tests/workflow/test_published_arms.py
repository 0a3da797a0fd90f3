"""Published networks as arms, from files in their projects' layouts to the page, on a small phantom."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import octdino
from octdino.data.csv_io import read_table
from octdino.data.schemas.csv_schemas import COMPARISON, METRICS
from octdino.inference.export import ExportOptions, export
from octdino.inference.model_writer import write_model
from octdino.inference.trained_runs import Wanted, choose, read_runs
from tests.models.published import SIDE, checkpoint, model_of
from tests.workflow.conftest import Workflow
from tests.workflow.test_end_to_end import TINY

pytestmark = pytest.mark.slow
ARMS = ["scratch-finetune", "retfound-linear", "mirage-finetune", "dinov3-mlp", "mirage_more-linear"]


def configuration(folder: Path) -> dict[str, Any]:
    """The tiny phantom with a file of each layout in `folder`; one run continues from MIRAGE without labels."""
    models: dict[str, Any] = {"tiny": {"timm": "test_resnet"}}
    for name, layout in {"retfound": "retfound_mae", "mirage": "mirage", "dinov3": "dinov3"}.items():
        path = folder / f"{name}.pth"
        torch.save(checkpoint(layout), path)
        models[name] = model_of(layout, path, input_size=SIDE)
        models[name]["weights"] = str(path)
    variants = {"mirage_more": {"method": "simclr", "init": "mirage"}}
    sections: dict[str, dict[str, Any]] = {
        "pretrain": {"methods": ["mirage_more"], "variants": variants, "epochs": 1},
        "classify": {"arms": ARMS, "fractions": [1.0], "augment": {"global_size": 48}},
    }
    tiny: dict[str, Any] = TINY
    return {**tiny, "models": models, **{name: {**tiny[name], **given} for name, given in sections.items()}}


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """A finished run with published networks as arms."""
    flow = Workflow(tmp_path_factory.mktemp("published"), stub=False)
    flow.configure(configuration(flow.folder))
    done = flow.run("--cores", "2")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    return flow


def classifier(flow: Workflow, arm: str, backbone: str) -> dict[str, Any]:
    path = flow.folder / f"results/phantom/classify/{arm}/{backbone}/f1/fold0-seed0/classifier.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_each_arm_has_its_own_network_input_and_license(flow: Workflow) -> None:
    retfound, mirage = classifier(flow, "retfound-linear", "retfound"), classifier(flow, "mirage-finetune", "mirage")
    assert retfound["published"]["license"] == "CC BY-NC 4.0"
    assert mirage["published"] | {"sha256": ""} == {
        "layout": "mirage", "license": "CC BY-NC-ND 4.0", "file": "mirage.pth", "sha256": "",
        "data": "retinal OCT and SLO", "standardized_by": "published",
    }  # fmt: skip
    assert (mirage["input"]["size"], mirage["input"]["mean"], mirage["input"]["std"]) == (SIDE, [0.0], [1.0])
    assert (retfound["input"]["mean"], retfound["input"]["std"]) == ([0.449], [0.226])
    scratch, more = classifier(flow, "scratch-finetune", "tiny"), classifier(flow, "mirage_more-linear", "mirage")
    assert scratch["input"]["size"] == more["input"]["size"] == 48
    assert "published" not in scratch | more
    run = flow.folder / "results/phantom/pretrain/mirage_more/mirage/fold0-seed0"
    start = json.loads((run / "backbone.json").read_text())["start"]
    assert (start["from"], start["sha256"], start["license"]) == ("mirage", mirage["pretrained"], "CC BY-NC-ND 4.0")


def test_the_page_compares_them_with_the_reference_and_names_their_licenses(flow: Workflow) -> None:
    results = flow.folder / "results/phantom"
    assert set(read_table(results / "evaluate/metrics.csv", METRICS)["arm"]) == {*ARMS, "clinical"}
    compared = read_table(results / "evaluate/comparison.csv", COMPARISON)
    against = compared[compared["reference"] == "scratch-finetune"]
    assert {"retfound-linear", "mirage-finetune", "dinov3-mlp"} <= set(against["arm"])
    page = (results / "report/report.html").read_text()
    continued = "mirage_more continues from published weights in the layout of MIRAGE"
    for said in (
        "CC BY-NC 4.0",
        "CC BY-NC-ND 4.0",
        "DINOv3 License",
        "retfound starts from published weights",
        continued,
    ):
        assert said in page
    assert (results / "audit/passed").exists()
    assert not flow.rules()


@pytest.mark.parametrize("arm", ["retfound-linear", "mirage-finetune", "dinov3-mlp", "mirage_more-linear"])
def test_a_model_folder_of_such_an_arm_predicts_and_is_exported(flow: Workflow, arm: str, tmp_path: Path) -> None:
    results = flow.folder / "results/phantom"
    written = write_model(results, choose(read_runs(results), Wanted(arm=arm)), tmp_path / arm)
    published = written.provenance.published
    assert published is not None
    assert published.continued_by == ("mirage_more" if arm == "mirage_more-linear" else None)
    files = (path for path in flow.folder.rglob("*.png") if "results" not in path.relative_to(flow.folder).parts)
    scan = next((path for path in files if "masks" not in path.parts), None) or next(results.rglob("*.png"))
    assert len(octdino.load(tmp_path / arm).predict([scan])) == len(written.labels)
    export(tmp_path / arm, "timm", tmp_path / "exported", ExportOptions(backbone_only=True))
    readme = (tmp_path / "exported/README.md").read_text()
    assert "published by others" in readme
    assert f"license: {published.license}; it binds this model" in readme
