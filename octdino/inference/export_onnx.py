"""Export to ONNX: one file from stored scans to calibrated probabilities, checked with onnxruntime."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch

from octdino.errors import UserError, one_line
from octdino.inference.export_check import BATCHES, OutputCheck
from octdino.inference.export_graph import ScanGraph
from octdino.inference.export_network import added_metadata, architecture, timm_backbone
from octdino.inference.scan_model import ScanModel

log = logging.getLogger("octdino.inference")

OPSET = 18  # of torch's exporter without a conversion; onnxruntime 1.14 and newer read it
OUTPUTS = ("probabilities", "embeddings", "out_of_distribution")
FILE = "model.onnx"


def check_installed() -> None:
    """Check that the packages of the extra `onnx` are there.

    Raises:
        UserError: one is missing.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise UserError(f"--to onnx: {error}; install octdino with its extra: pip install 'octdino[onnx]'") from None
    log.debug("onnx %s, onnxruntime %s, onnxscript %s", onnx.__version__, onnxruntime.__version__, onnxscript)


def write_onnx(model: ScanModel, folder: Path, check: OutputCheck) -> None:
    """Write model.onnx: input `scans` uint8 [N, C, H, W] of the store's size, outputs OUTPUTS, any batch size N.

    Raises:
        UserError: torch cannot export the network, the file would exceed the 2 GB of the format, or onnxruntime
            computes other values than octdino.
    """
    name = f"{model.folder}: {architecture(model.metadata.spec)}"
    proto = _exported(ScanGraph(model, timm_backbone(model)).eval(), check, name)
    _without_traces(proto)
    for key, value in _metadata(model).items():
        proto.metadata_props.add(key=key, value=value)
    proto.producer_name = "octdino"
    try:
        data = proto.SerializeToString()
    except ValueError as error:  # protobuf's limit
        raise UserError(f"{name}: too large for one file: {one_line(error)}") from None
    (folder / FILE).write_bytes(data)
    _check_runtime(folder / FILE, check, name)


def _exported(graph: ScanGraph, check: OutputCheck, name: str) -> Any:
    """Return the graph as a ModelProto."""
    example = torch.from_numpy(check.scans[:2])  # one scan would fix the batch size
    for library in ("onnx_ir", "onnxscript"):
        logging.getLogger(library).setLevel(logging.WARNING)  # they list what they optimize
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about torch's own code
            program = torch.onnx.export(
                graph, (example,), dynamo=True, opset_version=OPSET, input_names=["scans"], output_names=OUTPUTS,
                dynamic_shapes={"scans": {0: "N"}}, external_data=False, verbose=False,
            )  # fmt: skip
    except Exception as error:  # the exporter raises errors of its own and of whatever it traces
        raise UserError(f"{name}: torch's ONNX exporter cannot express this network: {one_line(error)}") from None
    assert program is not None, "of the exporter with dynamo"
    return program.model_proto


def _without_traces(proto: Any) -> None:
    """Delete what the exporter notes about torch's code, stack traces with paths of this machine among it."""
    proto.ClearField("metadata_props")
    _clear_graph(proto.graph)
    for function in proto.functions:
        _clear_graph(function)


def _clear_graph(graph: Any) -> None:
    for name in ("node", "input", "output", "value_info", "initializer"):
        for part in getattr(graph, name):
            if not isinstance(part, str):  # a function has only the names of its inputs
                part.ClearField("metadata_props")
                part.ClearField("doc_string")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _clear_graph(attribute.g)
    graph.ClearField("metadata_props")
    graph.ClearField("doc_string")


def _metadata(model: ScanModel) -> dict[str, str]:
    """Return metadata_props: texts as they are, all else as JSON; thresholds are of calibrated probabilities."""
    values = added_metadata(model) | {"opset": OPSET, "architecture": architecture(model.metadata.spec)}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def _check_runtime(path: Path, check: OutputCheck, name: str) -> None:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # classes of its own for each fault of a graph
        raise UserError(f"{name}: onnxruntime refuses the graph: {one_line(error)}") from None
    for batch in BATCHES:
        for start in range(0, len(check.scans), batch):
            found = session.run(list(OUTPUTS), {"scans": check.scans[start : start + batch]})
            check.compare(dict(zip(OUTPUTS, found, strict=True)), start, f"{name} in onnxruntime")
