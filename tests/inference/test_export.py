"""Exports load in timm and safetensors alone, their README's code predicts as octdino does, mistakes are one line."""

import json
import re
import shutil

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

import octdino
from octdino.cli import main
from octdino.errors import UserError
from octdino.inference.export import ExportOptions, export
from octdino.inference.model_writer import write_model
from octdino.inference.scan_model import load_scan_model
from octdino.inference.trained_runs import Wanted, choose, read_runs

from .model_folders import LABELS, VIT, Recipe, smooth_scans, write_model_folder

BACKBONE = ExportOptions(backbone_only=True)
EXAMPLES = {
    "timm, cnn, resized": ("timm", Recipe(stored=(48, 40))),
    "timm, vit, exclusive, RGB": ("timm", Recipe(model=VIT, exclusive=True, channels=3)),
    "huggingface, cnn, exclusive, percentiles": (
        "huggingface", Recipe(exclusive=True, percentiles=(1.0, 99.0), temperature=None),
    ),
    "huggingface, vit, RGB, percentiles, resized": (
        "huggingface", Recipe(model=VIT, channels=3, percentiles=(2.0, 98.0), stored=(40, 40)),
    ),
    "safetensors, cnn, layers": ("safetensors", Recipe(readout="layers", stored=(48, 40))),
    "safetensors, vit, layers": ("safetensors", Recipe(model=VIT, readout="layers", exclusive=True)),
    "safetensors, pooled head": ("safetensors", Recipe(temperature=None)),
    "safetensors, mlp": ("safetensors", Recipe(kind="mlp", readout="layers")),
    "safetensors, knn": ("safetensors", Recipe(kind="knn", temperature=0.5)),
    "safetensors, knn, exclusive": ("safetensors", Recipe(kind="knn", exclusive=True)),
    "onnx, RGB, percentiles": ("onnx", Recipe(channels=3, percentiles=(1.0, 99.0), stored=(48, 40))),
}  # fmt: skip


def run_readme(folder, monkeypatch):
    """The variables after all Python of README.md was run in the folder."""
    monkeypatch.chdir(folder)
    variables = {}
    for block in re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL):
        exec(block, variables)
    return variables


def save_scan(path, channels):
    scan = smooth_scans(1, channels, (61, 77), seed=3)[0]
    Image.fromarray(scan[0] if channels == 1 else scan.transpose(1, 2, 0)).save(path)
    return path


@pytest.mark.parametrize(("to", "recipe"), EXAMPLES.values(), ids=EXAMPLES)
def test_code_of_the_readme_predicts_as_octdino(to, recipe, tmp_path, monkeypatch):
    model = write_model_folder(tmp_path / "model", recipe)
    export(model, to, tmp_path / "out")
    scan = save_scan(tmp_path / "out" / "scan.png", recipe.channels)
    found = run_readme(tmp_path / "out", monkeypatch)
    predictor = octdino.load(model)
    np.testing.assert_allclose(np.asarray(found["probabilities"]), predictor.probabilities(scan), atol=1e-5)
    if to in ("safetensors", "onnx"):
        expected = load_scan_model(model).outputs(predictor.preprocess(scan)).out_of_distribution
        np.testing.assert_allclose(np.asarray(found["out_of_distribution"]), expected, rtol=1e-4)


@pytest.mark.parametrize("to", ["timm", "huggingface"])
@pytest.mark.parametrize("model", [Recipe(readout="layers"), Recipe(model=VIT, kind="knn")], ids=["cnn", "vit"])
def test_backbone_alone_gives_the_embeddings(to, model, tmp_path, monkeypatch):
    folder = write_model_folder(tmp_path / "model", model)
    export(folder, to, tmp_path / "out", BACKBONE)
    scan = save_scan(tmp_path / "out" / "scan.png", 1)
    found = run_readme(tmp_path / "out", monkeypatch)
    np.testing.assert_allclose(found["features"].numpy(), octdino.load(folder).embed(scan), atol=1e-5)
    assert "## Labels" not in (tmp_path / "out" / "README.md").read_text()


def test_finetuned_run_loads_strictly_into_timm(run, tmp_path):
    chosen = choose(read_runs(run), Wanted(arm="scratch-finetune"))
    write_model(run, chosen, tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), "--to", "timm", "--out", str(tmp_path / "out")]) == 0
    network = timm.create_model("resnet18", num_classes=2, in_chans=1, channels=[8, 8, 16, 16])
    network.load_state_dict(load_file(tmp_path / "out" / "model.safetensors"), strict=True)
    images = smooth_scans(5, 1, (32, 32), seed=4)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architecture"] == "resnet18"
    assert config["num_classes"] == 2
    assert config["label_names"] == ["square", "stripes"]
    cfg = config["pretrained_cfg"]
    assert cfg["input_size"] == [1, 32, 32]
    inputs = (torch.from_numpy(images) / 255 - cfg["mean"][0]) / cfg["std"][0]
    found = network.eval()(inputs).sigmoid().detach().numpy()
    np.testing.assert_allclose(found, load_scan_model(tmp_path / "model").outputs(images).raw, atol=1e-5)


def test_folder_for_a_hub_loads_by_its_path_and_timms_transform_gives_the_input(tmp_path):
    model = write_model_folder(tmp_path / "model", Recipe(model=VIT))
    export(model, "huggingface", tmp_path / "out")
    network = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    assert network.pretrained_cfg["label_names"] == LABELS
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    scan = save_scan(tmp_path / "scan.png", 1)
    found = network(transform(Image.open(scan))[None]).detach().double()
    expected = octdino.load(model).probabilities(scan)
    np.testing.assert_allclose((found / 1.7).sigmoid().numpy(), expected, atol=1e-5)


def test_model_card_has_valid_front_matter_scores_and_no_path(tmp_path):
    model = write_model_folder(tmp_path / "model", Recipe())
    export(model, "huggingface", tmp_path / "out", ExportOptions(license="cc-by-4.0"))
    text = (tmp_path / "out" / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    found = yaml.safe_load(front)
    expected = {"license": "cc-by-4.0", "library_name": "timm", "pipeline_tag": "image-classification"}
    assert {key: found[key] for key in expected} == expected
    assert "timm" in found["tags"]
    assert found["datasets"] == ["clinic-a"]
    metrics = found["model-index"][0]["results"][0]["metrics"]
    assert [(each["type"], each["value"]) for each in metrics] == [("roc_auc", 0.8125), ("roc_auc", 0.7)]
    assert "0.750 to 0.875, 12 patients" in metrics[0]["name"]
    assert "| macro | brier | 0.210 | 0.200 to 0.250, 12 patients |" in body
    assert "| 2 | ring \\| &lt;b> | none |" in body
    assert "For tests." in body
    for path in (tmp_path / "out").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path
        assert path.stat().st_mode & 0o777 == (tmp_path / "out" / "README.md").stat().st_mode & 0o777


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(readout="layers"), "its head reads earlier layers, which no classifier of timm does; --backbone-only"),
        (Recipe(kind="mlp"), "its mlp head is no classifier of timm; --backbone-only exports the backbone alone"),
        (Recipe(kind="knn"), "its knn head is no classifier"),
    ],
)
@pytest.mark.parametrize("to", ["timm", "huggingface"])
def test_heads_that_timm_cannot_express_are_refused_with_what_can_be_exported(to, recipe, message, tmp_path):
    folder = write_model_folder(tmp_path / "model", recipe)
    with pytest.raises(UserError, match=message):
        export(folder, to, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_earlier_export_is_replaced_and_other_files_never(tmp_path):
    first = write_model_folder(tmp_path / "first", Recipe())
    second = write_model_folder(tmp_path / "second", Recipe(model=VIT))
    out = tmp_path / "out"
    out.mkdir()
    export(first, "safetensors", out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    export(second, "timm", out)
    names = {"README.md", "config.json", "export.json", "model.safetensors"}
    assert {path.name for path in out.iterdir()} == names
    with pytest.raises(UserError, match=r"has files and no export.json, so another command wrote them"):
        export(second, "timm", first)
    assert load_scan_model(first).labels == LABELS
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes.txt: no file of the export"):
        export(first, "timm", out)
    (out / "notes.txt").unlink()
    (out / "README.md").write_text("mine")
    with pytest.raises(UserError, match=r"README.md: was changed since it was exported"):
        export(first, "timm", out)
    assert (out / "README.md").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second", "out"}
    shutil.rmtree(out)
    export(first, "safetensors", out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "onnx", "--backbone-only"], "--backbone-only: is for timm and huggingface"),
        (["--to", "timm", "--license", "mit"], "--license: is for the model card"),
        (["--to", "huggingface", "--license", "My License"], "'My License' is no identifier"),
        (["--to", "timm"], "model.json: no such file"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, capsys):
    assert main(["export", str(tmp_path / "none"), *arguments, "--out", str(tmp_path / "out")]) == 2
    last = capsys.readouterr().err.strip().splitlines()
    assert len(last) == 1
    assert message in last[0]
    assert not (tmp_path / "out").exists()
