"""octdino export: a model folder in a form that other software loads, with a README whose code predicts a scan."""

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from octdino.data.safetensors_torch import write_tensors
from octdino.data.schemas.model_folder import BACKBONE, DENSITY, HEAD
from octdino.errors import UserError, short
from octdino.inference.export_card import model_card
from octdino.inference.export_check import OutputCheck, output_check
from octdino.inference.export_folder import export_folder
from octdino.inference.export_network import check_network, timm_backbone, timm_classifier, timm_config
from octdino.inference.export_onnx import OPSET, check_installed, write_onnx
from octdino.inference.export_readme import CONFIG, onnx_readme, safetensors_readme, timm_readme
from octdino.inference.scan_model import ScanModel, density_tensors, load_scan_model
from octdino.training.determinism import set_determinism

log = logging.getLogger("octdino.inference")

Target = Literal["timm", "safetensors", "onnx", "huggingface"]
WEIGHTS = "model.safetensors"
LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{0,59}")


@dataclass(frozen=True)
class ExportOptions:
    """What is exported.

    Attributes:
        backbone_only: timm and huggingface: without the classifier (num_classes=0).
        license: huggingface: identifier of the license of the weights, as hubs spell it (mit, cc-by-4.0, other).
    """

    backbone_only: bool = False
    license: str = "other"


def export(folder: Path, to: Target, out: Path, options: ExportOptions | None = None) -> None:
    """Write a model folder to `out` in the form `to`, after its outputs were compared with those of octdino.

    Args:
        folder: a model folder.
        out: a new or empty folder, or an unchanged earlier export, which is replaced.

    Raises:
        UserError: no model folder, a head that the form cannot express, outputs that differ, or `out` has other files.
    """
    options = options or ExportOptions()
    _check_options(to, options)
    set_determinism(True)
    model = load_scan_model(folder)
    model.network.backbone.cpu()  # the reference of all comparisons
    with export_folder(out, to, model.metadata.sha256) as temporary:
        check = output_check(model)
        if to == "onnx":
            write_onnx(model, temporary, check)
            readme = onnx_readme(model, OPSET)
        elif to == "safetensors":
            readme = _write_safetensors(model, temporary, check)
        else:
            readme = _write_timm(model, temporary, check, to, options)
        (temporary / "README.md").write_text(readme, encoding="utf-8")
    log.info("%s: %s as %s", out, folder, to)


def _check_options(to: Target, options: ExportOptions) -> None:
    if options.backbone_only and to not in ("timm", "huggingface"):
        raise UserError(f"--backbone-only: is for timm and huggingface; {to} has backbone and head")
    if options.license != "other" and to != "huggingface":
        raise UserError(f"--license: is for the model card of huggingface; {to} has none")
    if not LICENSE.fullmatch(options.license):
        raise UserError(f"--license: {short(options.license)} is no identifier such as mit, cc-by-4.0 or other")
    if to == "onnx":
        check_installed()


def _write_timm(model: ScanModel, folder: Path, check: OutputCheck, to: Target, options: ExportOptions) -> str:
    """Write the weights and config.json of one network of timm; return README.md."""
    network = timm_backbone(model) if options.backbone_only else timm_classifier(model)
    check_network(network, model, check, f"{model.folder} as a network of timm")
    config = timm_config(model, network)
    write_tensors(folder / WEIGHTS, {name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    _write_json(folder / CONFIG, config)
    classes = int(config["num_classes"])
    return timm_readme(model, classes) if to == "timm" else model_card(model, classes, options.license)


def _write_safetensors(model: ScanModel, folder: Path, check: OutputCheck) -> str:
    """Write backbone, head and density as plain tensors, and config.json; return README.md."""
    backbone = timm_backbone(model)
    check_network(backbone, model, check, f"{model.folder} as a network of timm")
    write_tensors(folder / BACKBONE, {name: tensor.contiguous() for name, tensor in backbone.state_dict().items()})
    write_tensors(folder / HEAD, {name: tensor.contiguous() for name, tensor in model.tensors.items()})
    write_tensors(folder / DENSITY, density_tensors(model.density))
    _write_json(folder / CONFIG, timm_config(model, backbone))
    return safetensors_readme(model, backbone)


def _write_json(path: Path, values: dict[str, object]) -> None:
    path.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
