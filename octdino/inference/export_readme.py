"""README.md of an export: code that loads and predicts, the input, the outputs, what the model is meant for."""

from torch import nn

from octdino.inference import export_code as code
from octdino.inference.export_graph import VOTE_TEMPERATURE
from octdino.inference.export_network import added_metadata
from octdino.inference.scan_model import ScanModel

CONFIG = "config.json"


def python(lines: list[str]) -> str:
    """Return a code block."""
    return "\n".join(["```python", *lines, "```"])


def document(sections: list[str]) -> str:
    """Return a text of sections separated by empty lines."""
    return "\n\n".join(section.strip("\n") for section in sections) + "\n"


def cell(value: object) -> str:
    """Return a text as one line that is safe in a Markdown table."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def timm_readme(model: ScanModel, classes: int) -> str:
    """Return README.md of `--to timm`; `classes` is 0 for a backbone alone."""
    end = code.probability_code(model, "network(x).detach()") if classes else "features = network(x).detach()"
    lines = [*code.imports_code(model), *code.create_code(model, "network", "model.safetensors")]
    return document(
        [
            f"# {_title(model)}: weights for timm",
            python([*lines, *code.input_code(model), end]),
            *common_sections(model, bool(classes)),
        ]
    )


def safetensors_readme(model: ScanModel, backbone: nn.Module) -> str:
    """Return README.md of `--to safetensors`."""
    lines = [*code.imports_code(model), *code.create_code(model, "backbone", "backbone.safetensors")]
    lines += [
        'head = load_file("head.safetensors")',
        *code.input_code(model),
        *code.features_code(backbone, model.metadata.readout),
        *code.head_code(model),
    ]
    return document(
        [
            f"# {_title(model)}: plain tensors",
            python(lines),
            _formula(model),
            "Continued: the distance to the training scans. Above 1, a scan is unlike them and its probabilities mean "
            "little.",
            python(code.distance_code(model, backbone)),
            *common_sections(model, head=True),
        ]
    )


def onnx_readme(model: ScanModel, opset: int) -> str:
    """Return README.md of `--to onnx`."""
    height, width = model.metadata.input.image.size
    channels = model.metadata.input.image.channels
    lines = [
        "import json",
        "import numpy as np",
        "import onnxruntime",
        "from PIL import Image",
        "",
        'session = onnxruntime.InferenceSession("model.onnx")',
        *code.image_code(model),
        f"scans = np.asarray(image).reshape(1, {height}, {width}, {channels}).transpose(0, 3, 1, 2)",
        'probabilities, embeddings, out_of_distribution = session.run(None, {"scans": scans})',
        'labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])',
    ]
    return document(
        [
            f"# {_title(model)}: ONNX",
            python(lines),
            f"`scans` is uint8 [N, {channels}, {height}, {width}] with any N. Standardization, resize, read-out, head "
            f"and calibration are inside the graph. `probabilities` [N, {len(model.labels)}] are calibrated, "
            f"`embeddings` [N, {code.output_width(model)}] are the backbone's pooled features, `out_of_distribution` "
            "[N] above 1 means: unlike the training scans. Numbers inside are float32; "
            f"opset {opset} of ONNX's default domain. The metadata of the file (`custom_metadata_map`) has labels, "
            "thresholds, image settings, intended use and provenance.",
            *common_sections(model, head=True),
        ]
    )


def _title(model: ScanModel) -> str:
    return cell(f"{model.metadata.arm}, {model.metadata.backbone}, cohort {model.metadata.provenance.cohort}")


def _formula(model: ScanModel) -> str:
    """Return what the tensors of head.safetensors are."""
    kind = model.metadata.head.kind
    text = {
        "linear": "`weight` W [L, D], `bias` b [L]. With features f [D]: logits z = W f + b.",
        "mlp": "`mean`, `std` [D], `layers.0.weight` A [H, D], `layers.0.bias` a [H], `layers.3.weight` B [L, H], "
        "`layers.3.bias` b [L]. With features f [D]: logits z = B max(A (f - mean) / std + a, 0) + b.",
        "knn": f"`bank` [M, D] are features of training scans, `labels` [M, L] their labels, NaN where unknown. Of the "
        f"{model.metadata.head.neighbors} nearest by cosine c, those whose label is known vote with the weight exp(c / "
        f"{VOTE_TEMPERATURE}); the probability is the share of the votes, 0.5 where there is none.",
    }[kind]
    order = ""
    if model.metadata.readout == "layers":
        order = " The features f are those of earlier layers, then the pooled ones, as the code joins them."
    return f"`head.safetensors`: {text}{order}"


def input_section(model: ScanModel) -> str:
    """Return how a file becomes the network's input, and for which files the code above is exact."""
    given = model.metadata.input
    image = given.image
    height, width = image.size
    lines = [
        "## Input",
        f"A B-scan as {'gray' if image.channels == 1 else 'RGB'} of 8 bits, resized to {height} x {width} px (height x "
        f"width) with an anti-aliased bilinear filter and rounded, divided by 255, standardized with mean {given.mean} "
        f"and standard deviation {given.std}"
        + (f", then resized to {given.size} x {given.size} px." if image.size != (given.size, given.size) else "."),
        "The code takes image files of 8 bits without transparency. Of 16 bits take the high byte first; octdino's own "
        "reader (`octdino.load(MODEL).preprocess(FILE)`) also checks and converts other files.",
    ]
    if image.percentiles:
        lines.append(f"Gray levels are first stretched between the percentiles {list(image.percentiles)} of the scan.")
    if image.crop == "retina":
        lines.append(
            "**The model was trained on scans cropped to the retina** (`octdino.scans.retina.retina_box`), which the "
            "code does not do: crop the file first, or use octdino's own reader."
        )
    return "\n\n".join(lines)


def common_sections(model: ScanModel, head: bool) -> list[str]:
    """Return the sections of every README: input, labels (with a head), intended use, provenance."""
    sections = [input_section(model)]
    if head:
        sections.append(label_section(model))
    return [*sections, f"## Intended use\n\n{cell(model.metadata.intended_use)}", provenance_section(model)]


def label_section(model: ScanModel) -> str:
    """Return the labels in the order of the outputs, with their thresholds."""
    if model.metadata.exclusive:
        rule = "The labels exclude each other: the most probable one is called."
        rows = [f"| {index} | {cell(label)} |" for index, label in enumerate(model.labels)]
        return "\n".join(["## Labels", "", rule, "", "| index | label |", "|---|---|", *rows])
    rule = (
        f"Each label on its own: called at or above its threshold (rule `{model.metadata.threshold_rule}` on "
        "validation patients). Thresholds are of the calibrated probabilities above."
    )
    thresholds = added_metadata(model)["thresholds"]
    rows = [
        f"| {index} | {cell(label)} | {'none' if value is None else format(value, '.6g')} |"
        for index, (label, value) in enumerate(thresholds.items())
    ]
    return "\n".join(["## Labels", "", rule, "", "| index | label | threshold |", "|---|---|---|", *rows])


def provenance_section(model: ScanModel) -> str:
    """Return where the model comes from."""
    found = model.metadata.provenance
    seen = {
        "all": "every scan of the cohort, test patients among them, without labels",
        "train_patients": "scans of training patients only, without labels",
        None: "none by octdino",
    }[found.scope]
    unknown = "unknown"
    lines = [
        f"- cohort {cell(found.cohort)} (kind {cell(found.kind)}), content hash {cell(found.source)}",
        f"- arm {cell(model.metadata.arm)}, fold {found.fold}, seed {found.seed}",
        f"- labels of {found.n_train_scans or unknown} scans of {found.n_train_patients or unknown} training patients "
        f"({100 * found.fraction:g} % of them)",
        f"- pretraining on: {seen}",
        f"- made with {', '.join(f'{cell(name)} {cell(version)}' for name, version in found.versions.items())}",
    ]
    if found.published:
        layout, license_name = cell(found.published.layout), cell(found.published.license or "unknown")
        by = f", continued by {cell(found.published.continued_by)}" if found.published.continued_by else ""
        lines.append(
            f"- **first weights published by others** (layout {layout}{by}), license: {license_name}; it binds this "
            "model"
        )
    if found.kind == "phantom":
        lines.append("- **trained on synthetic scans: it has not seen a patient**")
    return "\n".join(["## Provenance", "", *lines])
