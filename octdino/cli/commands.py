"""Commands of training, evaluation and report: one verb per stage, each stage imported when its verb runs."""

import argparse
from pathlib import Path

from octdino.cli.arguments import (
    add_common,
    add_fold,
    add_part,
    add_run,
    add_store,
    arm,
    file_path,
    fold,
    init,
    mapping,
)
from octdino.cli.flags import Parser, Verbs, add_flags, given, settings_of
from octdino.cli.new_scans import add_new_scans, run_embed_scans
from octdino.config import (
    METHODS,
    Arm,
    AuditSettings,
    ClassifySettings,
    EmbedSettings,
    EvaluateSettings,
    ExplainSettings,
    ModelSettings,
    PretrainSettings,
    ReportSettings,
)
from octdino.config.settings_base import merged
from octdino.errors import UserError

LISTS = ("methods", "variants", "backbones", "seeds", "scope")  # of the workflow; one command is one run


def _add_pretrain(parser: Parser) -> None:
    parser.add_argument("method", metavar="METHOD", help=f"{', '.join(METHODS)}, or a name below --variants")
    add_run(parser, out="folder for backbone.safetensors, backbone.json and history.csv", together=True)
    parser.add_argument(
        "--fold", type=fold, default=0, metavar="N", help="fold whose training patients are used, or all (default: 0)"
    )
    parser.add_argument(
        "--max-minutes", type=float, metavar="X", help="save and stop with exit code 75 after this time"
    )
    add_flags(parser, PretrainSettings, skip=[name for name in LISTS if name != "variants"])
    for name, method in METHODS.items():
        add_flags(parser, method, f"{name}.", skip=("method", "backbones"))
    add_flags(parser, ModelSettings, "model.")


def run_pretrain(args: argparse.Namespace) -> None:
    """Pretrain a backbone without labels; a stopped run resumes from its checkpoint."""
    settings, model = _pretrain_settings(args), _model(args)
    variant = settings.variant(args.method)
    if model.weights is not None and not variant.starts_from_file(args.backbone):
        raise UserError(
            f"--model.weights: {args.method} starts from {variant.init or 'random weights'}; expected "
            f"--{variant.method}.init imagenet, or {args.backbone} as its init, to start from a file"
        )
    from octdino.pretrain import pretrain

    pretrain(
        args.method, settings, store=args.store, backbone=args.backbone, model=model,
        fold=args.fold, seed=args.seed, out=args.out, max_minutes=args.max_minutes,
    )  # fmt: skip


def _pretrain_settings(args: argparse.Namespace) -> PretrainSettings:
    """Return the settings with `--dino.lr` and the like in the variant that runs, without those of other runs."""
    scope = "all" if args.fold is None else "train_patients"
    settings = settings_of(args, PretrainSettings, merged(args.settings, {"methods": [args.method], "scope": scope}))
    kind = settings.variant(args.method).method
    for other in METHODS:
        if other != kind and given(args, f"{other}."):
            raise UserError(f"--{other}.*: {args.method} is a variant of {kind}; its flags begin with --{kind}.")
    variant = merged(settings.variants.get(args.method, {}), given(args, f"{kind}."))
    changed = settings.model_dump(exclude_unset=True) | {"variants": {**settings.variants, args.method: variant}}
    return PretrainSettings.parse(changed, "settings")


def _add_embed(parser: Parser) -> None:
    parser.add_argument(
        "init",
        metavar="INIT",
        help="whose weights: scratch, imagenet or a pretraining's; with INPUT: a model folder",
    )
    add_new_scans(parser)
    add_run(parser, out="folder for embeddings.h5", of_cohort=False)
    add_fold(parser)
    parser.add_argument("--pretrained", type=Path, metavar="PATH", help="folder of the pretraining run")
    add_flags(parser, EmbedSettings)
    add_flags(parser, ModelSettings, "model.")


def run_embed(args: argparse.Namespace) -> int:
    """Compute the features of every scan of a cohort, for linear, knn and mlp arms and for explain; or of new scans.

    `octdino embed INIT --store FILE --backbone NAME` is the stage of the workflow; `octdino embed MODEL INPUT` writes
    the embeddings of new scans by a model folder, which `octdino neighbors` searches.
    """
    if args.inputs:
        return run_embed_scans(args)
    args.parser.need(args, store="--store", backbone="--backbone")
    settings, start = settings_of(args, EmbedSettings), args.parser.read(init, "INIT", args.init)
    model = _start_model(args, start)
    from octdino.embed.embedding_stage import embed

    embed(
        start, settings, store=args.store, backbone=args.backbone, model=model, pretrained=args.pretrained,
        fold=args.fold, seed=args.seed, out=args.out,
    )  # fmt: skip
    return 0


def _add_classify(parser: Parser) -> None:
    parser.add_argument("arm", type=arm, metavar="ARM", help="{init}-{mode}: scratch-finetune, imagenet-linear, …")
    add_run(parser, out="folder for predictions.csv, classifier.safetensors and classifier.json", together=True)
    add_part(parser)
    parser.add_argument("--pretrained", type=Path, metavar="PATH", help="folder of the pretraining run to start from")
    parser.add_argument("--embeddings", type=file_path, metavar="FILE", help="linear, knn, mlp: embeddings.h5 of embed")
    add_flags(parser, ClassifySettings, skip=("arms", "fractions", "arm_fractions", "seeds"))
    add_flags(parser, ModelSettings, "model.")


def run_classify(args: argparse.Namespace) -> None:
    """Train the classifier of one arm and predict scans of validation and test patients."""
    settings, model = settings_of(args, ClassifySettings), _start_model(args, Arm.parse(args.arm).init)
    if model.weights is not None and args.embeddings is not None:
        raise UserError(
            f"--model.weights: the features are those of --embeddings {args.embeddings}; expected one of them"
        )
    from octdino.classify.train_arm import classify

    classify(
        args.arm, settings, store=args.store, backbone=args.backbone, model=model, pretrained=args.pretrained,
        embeddings=args.embeddings, fraction=args.fraction, fold=args.fold, seed=args.seed, out=args.out,
    )  # fmt: skip


def _add_clinical(parser: Parser) -> None:
    add_common(parser, out="folder for predictions.csv and classifier.json", settings=False)
    add_store(parser)
    add_part(parser)


def run_clinical(args: argparse.Namespace) -> None:
    """Predict from clinical values alone, without scans: the clinical baseline beside the arms."""
    from octdino.classify.clinical import clinical_baseline

    clinical_baseline(args.store, fraction=args.fraction, fold=args.fold, seed=args.seed, out=args.out)


def _add_evaluate(parser: Parser) -> None:
    parser.add_argument(
        "classifiers", type=Path, nargs="+", metavar="FOLDER", help="output folders of classify and clinical"
    )
    add_common(parser, out="folder for metrics.csv, comparison.csv and figures")
    parser.add_argument("--manifest", type=file_path, required=True, metavar="FILE", help="the cohort's manifest.csv")
    add_flags(parser, EvaluateSettings, skip=("external",))


def run_evaluate(args: argparse.Namespace) -> None:
    """Compare the arms on test patients, with bootstrap confidence intervals."""
    settings = settings_of(args, EvaluateSettings)
    from octdino.evaluate import evaluate

    evaluate(settings, args.manifest, args.classifiers, args.out)


def _add_audit(parser: Parser) -> None:
    parser.add_argument("runs", type=Path, nargs="*", metavar="FOLDER", help="output folders of pretrain and classify")
    add_common(parser, out="folder for findings.csv and audit.json")
    parser.add_argument("--store", type=file_path, required=True, metavar="FILE", help="scans.h5, its tables beside it")
    parser.add_argument(
        "--external",
        type=Path,
        nargs="*",
        default=[],
        metavar="DIR",
        help="results/{cohort}/external/{name} of cohorts that must share no scan with this one",
    )
    add_flags(parser, AuditSettings)


def run_audit(args: argparse.Namespace) -> None:
    """Check training, model selection and standardization for leakage of test patients."""
    settings = settings_of(args, AuditSettings)
    from octdino.audit.leakage_audit import audit

    audit(settings, args.store, args.runs, args.out, args.external)


def _add_verdict(parser: Parser) -> None:
    parser.add_argument("findings", type=Path, metavar="FILE", help="findings.csv of an audit")


def run_verdict(args: argparse.Namespace) -> None:
    """Fail with exit code 2 if an audit has a finding that is not acknowledged; else print what it could not check."""
    from octdino.audit.audit_verdict import verdict

    print(verdict(args.findings))


def _add_explain(parser: Parser) -> None:
    parser.add_argument("init", type=init, metavar="INIT", help="initial weights: scratch, imagenet or a method")
    add_run(parser, out="folder for overlap.csv, jaccard.csv, retrieval.csv, figures and explain.json")
    parser.add_argument("--pretrained", type=Path, metavar="PATH", help="folder of the pretraining run")
    parser.add_argument("--embeddings", type=file_path, required=True, metavar="FILE", help="embeddings.h5 of embed")
    parser.add_argument(
        "--classifier",
        type=Path,
        nargs="*",
        default=[],
        metavar="PATH",
        help="classifiers, linear or finetune, with these weights",
    )
    parser.add_argument("--masks-root", type=Path, metavar="DIR", help="root of the cohort, to compare maps with masks")
    add_flags(parser, ExplainSettings, skip=("inits", "arms", "seeds"))
    add_flags(parser, ModelSettings, "model.")


def run_explain(args: argparse.Namespace) -> None:
    """Compute attention and saliency maps, their overlap with lesion masks, and retrieval of similar scans."""
    settings, model = settings_of(args, ExplainSettings), _start_model(args, args.init)
    from octdino.explain import explain

    explain(
        args.init, settings, store=args.store, backbone=args.backbone, model=model, pretrained=args.pretrained,
        embeddings=args.embeddings, classifiers=args.classifier, masks_root=args.masks_root, seed=args.seed,
        out=args.out,
    )  # fmt: skip


def _add_report(parser: Parser) -> None:
    add_common(parser, out="the page, a file", metavar="FILE")
    parser.set_defaults(out_is="file")
    parser.add_argument("--results", type=Path, required=True, metavar="DIR", help="a cohort's results/{cohort}")
    parser.add_argument(
        "--config", type=mapping, default={}, metavar="FILE", help="configuration shown on the page (YAML or JSON)"
    )
    add_flags(parser, ReportSettings)


def run_report(args: argparse.Namespace) -> None:
    """Write all tables and figures on one self-contained HTML page."""
    settings = settings_of(args, ReportSettings)
    from octdino.report import write_report

    write_report(settings, args.results, args.config, args.out)


def _model(args: argparse.Namespace) -> ModelSettings:
    values = merged(args.model, given(args, "model."))
    return ModelSettings.parse({"timm": args.backbone, **values}, "model")


def _start_model(args: argparse.Namespace, start: str) -> ModelSettings:
    """Return the backbone of an arm or of an explained network, with weights only where it starts from them.

    Raises:
        UserError: it starts from random weights or from a pretraining run.
    """
    model = _model(args)
    if model.weights is None:
        return model
    if start == "scratch":
        raise UserError(
            "--model.weights: scratch starts from random weights; expected imagenet, or an init of another name, to "
            "start from a file"
        )
    if args.pretrained is not None:
        raise UserError(f"--model.weights: {start} starts from --pretrained {args.pretrained}; expected one of them")
    if start in METHODS:
        raise UserError(
            f"--model.weights: {start} is a pretraining method, whose weights are those of --pretrained; expected an "
            f"init of another name for published weights, such as {start}_published"
        )
    return model


TRAINING_VERBS: Verbs = {
    "pretrain": (_add_pretrain, run_pretrain),
    "embed": (_add_embed, run_embed),
    "classify": (_add_classify, run_classify),
    "clinical": (_add_clinical, run_clinical),
    "evaluate": (_add_evaluate, run_evaluate),
    "audit": (_add_audit, run_audit),
    "explain": (_add_explain, run_explain),
    "report": (_add_report, run_report),
    "verdict": (_add_verdict, run_verdict),
}
