"""Write the HTML page and the cards beside it; everything is read from files, no other stage is imported."""

import platform
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from octdino import STAGES, __version__
from octdino.config import EvaluateSettings, ReportSettings
from octdino.data.atomic_files import replacing
from octdino.html_template import page_environment
from octdino.report import calibration_tables, conclusions, tables
from octdino.report.audit_section import leaks
from octdino.report.cautions import cautions
from octdino.report.checklist import checklist, table
from octdino.report.configured_runs import has_arms, section, with_configured_runs
from octdino.report.data_card import Card, data_card, markdown
from octdino.report.efficiency_section import efficiency_section, power_section
from octdino.report.example_scans import examples, mistakes
from octdino.report.explain_section import explained
from octdino.report.external_section import (
    External,
    external_limits,
    external_methods,
    external_part,
    external_section,
)
from octdino.report.file_links import FileLinks, place_figures
from octdino.report.limitations import limits
from octdino.report.methods_text import methods_text
from octdino.report.model_card import backbone_of, model_card, runs_of
from octdino.report.references import bibliography, cited
from octdino.report.results_reader import Results, read_results
from octdino.report.run_pictures import run_pictures
from octdino.report.search_table import search_table
from octdino.report.training_section import (
    training_alarms,
    training_figures,
    training_table,
    without_curves,
)
from octdino.stats.significance import alpha

PACKAGES = ("torch", "timm", "monai", "numpy", "scikit-learn", "pandas", "h5py", "snakemake")
HERE = Path(__file__).parent
CITED = "Keys in square brackets are those of references.bib; Pandoc and Quarto resolve them."
MEANS = {
    "auroc": "the mean over the {labels} that have enough positive and negative {many}",
    "accuracy": "the share of {scans} whose class is predicted",
}


def write_report(settings: ReportSettings, results: Path, config: dict[str, Any], out: Path) -> None:
    """Write one self-contained HTML file: it makes no requests, images and figures are inside.

    Beside it are written data_card.md, model_card.md, checklist.md, methods.md with references.bib, and the figures of
    training, training_*.svg. Links lead to the files of the run, relative to the page.

    Args:
        results: results/{cohort}: cohort/, evaluate/, and pretrain/, classify/, benchmarks/ as far as they exist.
        config: the settings of all stages, to be shown; `evaluate.reference` is the reference arm.

    Raises:
        UserError: manifest or metrics are missing, or a file cannot be read.
    """
    found = with_configured_runs(read_results(results, has_arms(config)), config)
    links = FileLinks(results, out)
    shown = content(settings, found, config, links)
    cards = cards_of(settings, found, config, shown)
    answered = checklist(sections(shown), found.cohort.unit)
    page = page_environment("report").get_template("page.html.j2").render(**shown, cards=cards, checklist=answered)
    _write(out.with_name("methods.md"), "\n\n".join(["# Methods", *shown["methods"], CITED]) + "\n")
    _write(out.with_name("references.bib"), shown["bibliography"])
    for card in [*cards, Card("checklist", "TRIPOD+AI and CLAIM 2024", [table(answered)])]:
        _write(out.with_name(f"{card.name}.md"), markdown(card))
    for stale in out.parent.glob("training_*.svg"):
        stale.unlink()
    for curves in shown["training"]:
        _write(out.with_name(f"training_{curves.name}.svg"), curves.svg)
    _write(out, page)


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def cards_of(settings: ReportSettings, found: Results, config: dict[str, Any], shown: dict[str, Any]) -> list[Card]:
    """Return data card and model card."""
    data = data_card(found, config, settings.license, shown["leaks"])
    data.parts.extend(external_part(shown["external"]))
    return [data, model_card(found, shown["best"], shown["limits"], shown["versions"], shown["hardware"])]


def sections(shown: dict[str, Any]) -> dict[str, str]:
    """Return the headings by anchor of the sections of this page that the checklist names."""
    present = {
        "answer": "The answer", "run": "What was run", "limits": "Limitations", "data-card": "Data card",
        "model-card": "Model card",
    }  # fmt: skip
    if shown["headline"]:
        present |= {"comparison": "Comparison", "labels": f"Per {shown['words'].label}"}
    some = {
        "efficiency": "Label efficiency",
        "calibration": "Calibration", "subgroups": "Subgroups", "explained": "Attention and saliency",
        "mistakes": "Errors", "leaks": "Leakage",
        "external": "External validation",
    }  # fmt: skip
    anchors = {"explained": "explain", "mistakes": "errors", "leaks": "audit"}
    return present | {anchors.get(name, name): words for name, words in some.items() if shown[name]}


def content(settings: ReportSettings, found: Results, config: dict[str, Any], links: FileLinks) -> dict[str, Any]:
    """Return all variables of the template."""
    evaluated = EvaluateSettings.parse(section(config, "evaluate"), "evaluate")
    split = section(section(config, "cohort"), "split")
    reference, confidence = evaluated.reference, evaluated.confidence
    verdicts = conclusions.verdicts(found.tables, reference, confidence, found.cohort.unit)
    scored = [verdict for verdict in verdicts if verdict.arm]
    best = max(scored, key=lambda verdict: (verdict.fraction, verdict.value), default=None)
    words = found.cohort.words
    external = external_section(found.root, config, evaluated)
    figures = found.figures | ({"external": external.figure} if external else {})
    return {
        "title": settings.title or words.title,
        "words": words,
        "links": links,
        "place": partial(place_figures, figures, links=links),
        "external": external,
        **methods(found, config, evaluated, external),
        "cohort": found.cohort.name,
        "kind": found.cohort.kind,
        "css": Markup((HERE / "page.css").read_text(encoding="utf-8")),
        "js": Markup((HERE / "page.js").read_text(encoding="utf-8")),
        "headline": conclusions.headline(verdicts, reference, found.cohort.unit) if len(found.metrics) else "",
        "margins": conclusions.margins(verdicts, reference, found.tables.metric_name) if len(found.metrics) else [],
        "verdicts": verdicts,
        "unit": found.cohort.unit,
        "cautions": cautions(found, confidence),
        "alpha": f"{alpha(confidence):g}",
        "percent": conclusions.percent,
        "lead": found.tables.metric_name,
        "lead_means": MEANS[found.tables.metric].format(many=words.unit.many, labels=words.labels, scans=words.scans),
        "clinical": conclusions.against_clinical_baseline(found.tables, verdicts, confidence),
        "reference": reference,
        "confidence": f"{100 * confidence:g} %",
        "resamples": evaluated.resamples,
        **comparison_tables(found, reference, confidence),
        "efficiency": efficiency_section(found),
        "power": power_section(found, reference),
        "label_tables": tables.label_tables(found),
        "operating": calibration_tables.operating_table(found),
        "search": search_table(found),
        "calibration": calibration_tables.calibration_table(found),
        "subgroups": calibration_tables.subgroup_table(found),
        "small_group": evaluated.small_group,
        "expand": evaluated.small_sample_correction,
        "seeds": int(found.metrics["seed"].dropna().nunique()),
        **training(found),
        "leaks": leaks(found.root),
        "explained": explained(found.root, words, found.explained),
        **leading_arm(settings, found, best),
        **cohort_tables(found),
        "benchmarks": tables.benchmark_rows(found),
        "limits": [*limits(found, reference, str(split.get("protocol", "holdout"))), *external_limits(external)],
        "config": yaml.safe_dump(config, sort_keys=False, allow_unicode=True) if config else "",
        "versions": versions(),
        "hardware": hardware(found),
    }


def methods(
    found: Results, config: dict[str, Any], evaluated: EvaluateSettings, external: External | None
) -> dict[str, Any]:
    """Return the paragraphs of the methods text, and the bibliography that they cite."""
    text = methods_text(found, config, evaluated, versions(), hardware(found))
    text[-1:-1] = external_methods(external)  # software is last
    return {"methods": text, "bibliography": bibliography(cited(" ".join(text)))}


def training(found: Results) -> dict[str, Any]:
    """Return what the page shows of pretraining: curves, collapses, pictures and the table of runs."""
    heads, runs = training_table(found.pretraining, found.cohort.words)
    return {
        "training": training_figures(found.pretraining, sorted(set(found.metrics["arm"])), found.cohort.words),
        "single": without_curves(found.pretraining),
        "alarms": training_alarms(found.pretraining),
        "run_heads": heads,
        "run_pictures": run_pictures(found.root, found.pretraining),
        "runs": runs,
    }


def comparison_tables(found: Results, reference: str, confidence: float) -> dict[str, Any]:
    """Return the comparison of arms: one table of all and, where there are several backbones, one per fraction."""
    return {
        "comparison_heads": tables.comparison_heads(found, reference),
        "comparison": tables.comparison_rows(found, reference, confidence),
        "backbone_tables": tables.backbone_tables(found, reference, confidence),
        "reference_alone": tables.is_on_own_backbone(found, reference),
    }


def cohort_tables(found: Results) -> dict[str, Any]:
    """Return the tables of the cohort: counts, splits, prevalence, quarantine."""
    return {
        "counts": tables.cohort_counts(found),
        "split_heads": tables.split_heads(found),
        "splits": tables.split_rows(found),
        "prevalence_heads": tables.prevalence_heads(found),
        "prevalences": tables.prevalence_rows(found),
        "quarantine": tables.quarantine_rows(found),
    }


def leading_arm(settings: ReportSettings, found: Results, best: conclusions.Verdict | None) -> dict[str, Any]:
    """Return example scans and worst errors of the leading arm at the largest fraction."""
    if best is None:
        return {
            "best": None,
            "mistakes": [],
            "examples": [],
            "example_arm": "",
            "example_folder": "",
            "example_exclusive": False,
        }
    shown, folder = examples(found, settings.examples, best.arm, best.fraction, best.network)
    runs = runs_of(found, best.arm, best.fraction, backbone_of(found, best))
    return {
        "best": best,
        "mistakes": mistakes(found, runs, settings.mistakes),
        "examples": shown,
        "example_arm": best.arm,
        "example_exclusive": any(metadata["exclusive"] for _, metadata in runs),
        "example_folder": folder.relative_to(found.root).as_posix() if folder else "",
    }


def versions() -> list[tuple[str, str]]:
    """Return name and version of octdino, Python and the packages that the numbers depend on."""
    stages = ", ".join(f"{stage} {number}" for stage, number in STAGES.items())
    found = [("octdino", f"{__version__}; stages: {stages}"), ("Python", platform.python_version())]
    for name in PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return found


def hardware(found: Results) -> list[str]:
    """Return the devices that the runs were trained on, each once."""
    devices = [str(run.metadata["device"]) for run in found.pretraining if run.metadata.get("device")]
    devices += [str(metadata["device"]) for _, metadata in found.classifiers if metadata.get("device")]
    return list(dict.fromkeys(devices))
