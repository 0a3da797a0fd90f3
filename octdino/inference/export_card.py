"""Model card of an export for a model hub: YAML metadata, code, scores with intervals, limits."""

from typing import Any

import yaml

from octdino.data.schemas.model_folder import Score
from octdino.inference import export_code as code
from octdino.inference.export_network import architecture
from octdino.inference.export_readme import cell, common_sections, document, python
from octdino.inference.scan_model import ScanModel

HUB_METRICS = {"auroc": "roc_auc", "accuracy": "accuracy"}  # octdino's leading metrics under the hub's names
NAMES = {"auroc": "AUROC", "accuracy": "accuracy"}
INTERVAL = "interval over test patients: `evaluate.confidence` of the run, 95 % unless it was changed"


def model_card(model: ScanModel, classes: int, license_id: str) -> str:
    """Return README.md with front matter; `classes` is 0 for a backbone alone."""
    task = "image-classification" if classes else "image-feature-extraction"
    front = yaml.safe_dump(_front_matter(model, task, license_id), sort_keys=False, allow_unicode=True)
    kind = "classifier" if classes else "backbone"
    end = code.probability_code(model, "network(x).detach()") if classes else "features = network(x).detach()"
    load = [
        'network = timm.create_model("local-dir:.", pretrained=True).eval()  # hf-hub:OWNER/NAME once it is on a hub',
    ]
    imports = [line for line in code.imports_code(model) if "safetensors" not in line]
    return document(
        [
            f"---\n{front}---",
            f"# {_name(model)}",
            f"A {kind} for retinal OCT B-scans: {architecture(model.metadata.spec)} of timm, trained by octdino, "
            f"arm {cell(model.metadata.arm)}.",
            python([*imports, *load, *code.input_code(model), end]),
            _transform_note(model),
            *common_sections(model, bool(classes)),
            _scores_section(model, bool(classes)),
            _limits_section(model),
        ]
    )


def _name(model: ScanModel) -> str:
    return cell(f"{model.metadata.arm}-{model.metadata.backbone}")


def _transform_note(model: ScanModel) -> str:
    given = model.metadata.input
    if given.image.size == (given.size, given.size) and given.image.crop == "none" and not given.image.percentiles:
        call = "timm.data.create_transform(**timm.data.resolve_model_data_config(network))"
        return f"timm's own transform (`{call}`) of a PIL image gives the same input."
    return (
        "timm's own transform resizes the file at once to the network's size and skips the steps under *Input*: its "
        "probabilities differ from those of the code above."
    )


def _front_matter(model: ScanModel, task: str, license_id: str) -> dict[str, Any]:
    found = model.metadata.provenance
    leading = _leading(model)
    front: dict[str, Any] = {"license": license_id}
    if license_id == "other":
        front["license_name"] = "to-be-set-by-the-publisher"
    front |= {
        "library_name": "timm",
        "pipeline_tag": task,
        "tags": ["timm", task, "medical-imaging", "optical-coherence-tomography", "retina", "octdino"],
        "datasets": [found.cohort if found.kind == "folder" else found.kind],
    }
    if not leading:
        return front
    front["metrics"] = [HUB_METRICS[leading[0].metric]]
    dataset = {"name": f"{found.cohort}, test patients of fold {found.fold}", "type": found.kind}
    metrics = [
        {
            "type": HUB_METRICS[score.metric],
            "value": round(score.value or 0.0, 4),
            "name": f"{NAMES[score.metric]}, {score.label}: {_spread(score)}",
        }
        for score in leading
    ]
    task_value = {"type": "image-classification"}
    front["model-index"] = [
        {"name": _name(model), "results": [{"task": task_value, "dataset": dataset, "metrics": metrics}]}
    ]
    return front


def _leading(model: ScanModel) -> list[Score]:
    """Return the scores of the leading metric that have a value: macro first, then each label."""
    metric = "accuracy" if model.metadata.exclusive else "auroc"
    own = [score for score in model.metadata.metrics if score.metric == metric and score.value is not None]
    return sorted(own, key=lambda score: score.label != "macro")


def _spread(score: Score) -> str:
    interval = "no interval" if score.low is None or score.high is None else f"{score.low:.3f} to {score.high:.3f}"
    return f"{interval}, {score.n_patients or 'unknown'} patients"


def _scores_section(model: ScanModel, head: bool) -> str:
    """Return a table of the leading metric per label and of all macro metrics."""
    title = ["## Scores on test patients", ""]
    rows = _leading(model)
    rows += [
        score
        for score in model.metadata.metrics
        if score.label == "macro" and score.value is not None and score not in rows
    ]
    if not rows:
        return "\n".join([*title, "None: the classifier was not evaluated before it was exported."])
    of = "" if head else f" They are of the classifier {cell(model.metadata.arm)} on this backbone."
    lines = [f"| {cell(score.label)} | {cell(score.metric)} | {score.value:.3f} | {_spread(score)} |" for score in rows]
    table = ["| label | metric | value | interval |", "|---|---|---|---|", *lines]
    return "\n".join([*title, f"Value and {INTERVAL}.{of}", "", *table])


def _limits_section(model: ScanModel) -> str:
    found, ood = model.metadata.provenance, model.metadata.out_of_distribution
    lines = [
        f"- Trained on one cohort ({cell(found.cohort)}); other devices, protocols and populations were not tried.",
        "- Thresholds and calibration are of that cohort's prevalence; choose them again on scans of your own.",
        "- A scan unlike the training scans gets a probability, too: this form of the model does not flag it. octdino "
        f"itself, `--to safetensors` and `--to onnx` do; their threshold accepts {100 * ood.accepted:g} % of the "
        "validation scans.",
    ]
    if found.scope == "all":
        lines.append("- The pretraining saw the scans of test patients (without labels): scores may be too high.")
    if found.n_train_patients is None:
        lines.append("- The number of training patients is unknown.")
    return "\n".join(["## Limits", "", *lines])
