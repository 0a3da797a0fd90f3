"""The network of a model folder as timm itself makes it, and its config.json in timm's form."""

import warnings
from typing import Any, cast

import numpy as np
import timm
import torch
from torch import Tensor, nn

from octdino.config import ModelSettings
from octdino.data.schemas.metadata import BackboneSpec, Metadata
from octdino.errors import UserError, one_line
from octdino.inference.export_check import OutputCheck
from octdino.inference.scan_model import ScanModel
from octdino.models.backbones import timm_arguments
from octdino.stats.calibration import at_temperature, probabilities

INSTEAD = "--backbone-only exports the backbone alone (num_classes=0), --to safetensors or onnx backbone and head"


def architecture(spec: BackboneSpec) -> str:
    """Return timm's name of the network without the tag of its first weights."""
    return spec.timm.partition(".")[0]


def model_arguments(spec: BackboneSpec) -> dict[str, Any]:
    """Return what `timm.create_model` takes beside the name and num_classes."""
    return {"in_chans": spec.in_chans, **timm_arguments(ModelSettings(timm=spec.timm, args=spec.args), spec.size)}


def timm_backbone(model: ScanModel) -> nn.Module:
    """Return the backbone without octdino's guarded convolutions, on the CPU in eval mode."""
    return _loaded(model, model.network.backbone.state_dict(), 0)


def timm_classifier(model: ScanModel) -> nn.Module:
    """Return backbone and linear head as one network of timm, which maps [B, C, S, S] to logits [B, L].

    Raises:
        UserError: the head is not linear on pooled features, or the network's classifier is another kind of layer.
    """
    metadata, folder = model.metadata, model.folder
    if metadata.head.kind != "linear":
        raise UserError(f"{folder}: its {metadata.head.kind} head is no classifier of timm; {INSTEAD}")
    if metadata.readout == "layers":
        raise UserError(f"{folder}: its head reads earlier layers, which no classifier of timm does; {INSTEAD}")
    spec, count = metadata.spec, len(model.labels)
    weight, bias = (model.tensors[name].float() for name in ("weight", "bias"))
    network = _created(spec, count)
    classifier = cast(Any, network).get_classifier()
    plain = isinstance(classifier, nn.Linear) or (
        isinstance(classifier, nn.Conv2d) and classifier.kernel_size == (1, 1)
    )
    if not plain or classifier.weight.numel() != weight.numel():
        raise UserError(
            f"{folder}: the classifier of {spec.timm} is {one_line(ValueError(classifier))}; expected a linear layer "
            f"of {weight.shape[1]} features; {INSTEAD}"
        )
    name = next(name for name, module in network.named_modules() if module is classifier)
    state = dict(model.network.backbone.state_dict())
    state |= {f"{name}.weight": weight.reshape(classifier.weight.shape), f"{name}.bias": bias}
    return _loaded(model, state, count)


def _created(spec: BackboneSpec, count: int) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of timm's deprecated names
        return cast(nn.Module, timm.create_model(architecture(spec), num_classes=count, **model_arguments(spec)))


def _loaded(model: ScanModel, state: dict[str, Tensor], count: int) -> nn.Module:
    network = _created(model.metadata.spec, count)
    try:
        network.load_state_dict({name: tensor.cpu() for name, tensor in state.items()})
    except RuntimeError as error:
        said = f"timm's {architecture(model.metadata.spec)} with {count} classes does not take the weights"
        raise UserError(f"{model.folder}: {said}: {one_line(error)}; {INSTEAD}") from None
    return network.eval()


@torch.no_grad()
def check_network(network: nn.Module, model: ScanModel, check: OutputCheck, what: str) -> None:
    """Check a network of timm with or without a classifier: its probabilities, or its pooled features.

    Raises:
        UserError: they differ from those of the model folder.
    """
    found = np.concatenate([network(batch).numpy() for batch in model.network.batches(check.scans)])
    if not cast(Any, network).num_classes:
        check.compare({"embeddings": found}, 0, what)
        return
    metadata = model.metadata
    raw = probabilities(found.astype(np.float64), metadata.exclusive)
    if metadata.temperature is not None:
        raw = at_temperature(raw, metadata.temperature, metadata.exclusive)
    check.compare({"probabilities": raw}, 0, what)


def timm_config(model: ScanModel, network: nn.Module) -> dict[str, Any]:
    """Return config.json: what timm reads from a folder of a model hub, and beside it what octdino adds to it.

    `pretrained_cfg` describes the input as timm's transforms make it: resized at once to the network's size. That is
    octdino's input where the stored size is the network's.
    """
    metadata, spec, known = model.metadata, model.metadata.spec, cast(Any, network)
    count, size, own = int(known.num_classes), metadata.input.size, known.pretrained_cfg
    cfg: dict[str, Any] = {
        "tag": "octdino", "custom_load": False, "input_size": [spec.in_chans, size, size], "fixed_input_size": False,
        "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash", "mean": metadata.input.mean,
        "std": metadata.input.std, "num_classes": count, "pool_size": None, "first_conv": own.get("first_conv"),
        "classifier": own.get("classifier"),
    }  # fmt: skip
    config: dict[str, Any] = {
        "architecture": architecture(spec),
        "num_classes": count,
        "num_features": int(known.num_features),
        "model_args": model_arguments(spec),
        "pretrained_cfg": cfg,
        "octdino": added_metadata(model),
    }
    return config | ({"label_names": model.labels} if count else {})


def added_metadata(model: ScanModel) -> dict[str, Any]:
    """Return what a prediction needs beside the weights, and what a user has to know, as plain JSON values.

    Thresholds are of calibrated probabilities; null where a label has none.
    """
    metadata = model.metadata
    thresholds = {
        label: None if np.isnan(value) else float(value)
        for label, value in zip(model.labels, model.thresholds(), strict=True)
    }
    return {
        "labels": model.labels,
        "exclusive": metadata.exclusive,
        "thresholds": thresholds,
        "temperature": metadata.temperature,
        "readout": metadata.readout,
        "head": _declared(metadata.head),
        "input": _declared(metadata.input),
        "out_of_distribution": _declared(metadata.out_of_distribution),
        "arm": metadata.arm,
        "intended_use": metadata.intended_use,
        "provenance": _declared(metadata.provenance),
    }


def _declared(part: Metadata) -> dict[str, Any]:
    """Return the keys of the schema as plain JSON values; others, which may be anything, do not leave the machine."""
    return part.model_dump(mode="json", include=set(type(part).model_fields))
