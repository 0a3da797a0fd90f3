# Reads the settings and says which runs they ask for. Nothing heavy is imported: every nested Snakemake reads this.
import json
import os
import shlex
import sys
from pathlib import Path

from octdino import STAGES
from octdino.config import (
    BACKBONE_NAME,
    FRACTION_TEXT,
    METHOD_NAME,
    fraction_text,
    load_config,
)
from octdino.errors import EXIT_USER, UserError
from snakemake.exceptions import WorkflowError


def read_settings():
    """The validated settings; a mistake in them ends everything with one line before any job starts."""
    here = Path.cwd()
    paths = [Path(name) for name in workflow.configfiles]
    names = [
        str(path.relative_to(here) if path.is_relative_to(here) else path)
        for path in paths
    ]
    try:
        settings = load_config(config, " + ".join(dict.fromkeys(names)) or "config")
        check_files(settings)
    except UserError as error:
        print(f"octdino: error: {error}", file=sys.stderr)
        sys.exit(EXIT_USER)
    return settings


def check_files(settings):
    """Refuse paths that lead nowhere now, not after an hour."""
    cohort = settings.cohort
    named = {
        "cohort.table": cohort.table,
        "cohort.clinical": cohort.clinical,
        "cohort.split.file": cohort.split.file,
    } | {
        f"models.{name}.weights": model.weights
        for name, model in settings.models.items()
    }
    # What can be downloaded need not be there yet; the phantom is written.
    if cohort.name in ("olives", "folder") and not cohort.root.is_dir():
        raise UserError(f"cohort.root: no such folder: {cohort.root.absolute()}")
    for key, path in named.items():
        if path and not path.is_file():
            raise UserError(f"{key}: no such file: {path.absolute()}")


def as_json(values):
    """Settings as a `params:` value: plain text, so that Snakemake sees every change."""
    return json.dumps(values, sort_keys=True, ensure_ascii=False)


def model_json(backbone):
    """The backbone without its ImageNet weights, which are an input of the arms that start from them."""
    return as_json(
        settings.model(backbone).model_dump(mode="json", exclude={"weights"})
    )


def pretrain_run(method, backbone, seed, fold):
    """The folder of the pretraining that a classifier's seed starts from: its own seed's, or the first one's."""
    seeds = settings.pretrain.seeds
    fold = "all" if settings.pretrain.scope == "all" else fold
    seed = seed if seed in seeds else seeds[0]
    return f"results/{COHORT}/pretrain/{method}/{backbone}/fold{fold}-seed{seed}"


def pretrain_runs():
    """Every pretraining run that is asked for."""
    chosen = settings.pretrain
    return [
        pretrain_run(m, b, s, fold)
        for m in chosen.methods
        for b in chosen.backbones_of(m)
        for s in chosen.seeds
        for fold in FOLDS[: 1 if chosen.scope == "all" else None]
    ]


def classify_runs():
    """Every classifier that is asked for, and the clinical controls."""
    if not settings.classify.arms:
        return []
    folders = arm_folders(settings.classify.arms)
    if settings.cohort.clinical_values:
        folders += [
            f"clinical/none/f{fraction_text(f)}" for f in settings.classify.fractions
        ]
    return [
        f"results/{COHORT}/classify/{folder}/fold{fold}-seed{seed}"
        for folder in folders
        for seed in settings.classify.seeds
        for fold in FOLDS
    ]


def arm_folders(arms):
    """{arm}/{backbone}/f{fraction} of each arm, on the backbones that its method has and at its own fractions."""
    chosen = settings.pretrain
    return [
        f"{arm}/{backbone}/f{fraction_text(fraction)}"
        for arm in arms
        for backbone in (
            chosen.backbones_of(init_of(arm))
            if init_of(arm) in chosen.methods
            else chosen.backbones
        )
        for fraction in settings.classify.fractions_at(arm)
    ]


def init_of(arm):
    """Where an arm starts: scratch, imagenet or a method."""
    return arm.rsplit("-", 1)[0]


def first_weights(wildcards):
    """Files that a pretraining starts from: ImageNet weights, or an earlier run's, which this workflow may make."""
    init = settings.pretrain.variant(wildcards.method).init
    if init is None:
        return []
    if init == "imagenet":
        weights = settings.model(wildcards.backbone).weights
        return [str(weights)] if weights else []
    folder = settings.pretrain.variant(wildcards.method).start_folder(
        wildcards.backbone, wildcards.fold, wildcards.seed
    )
    return [f"{folder}/backbone.safetensors", f"{folder}/backbone.json"]


def pretrain_flags(wildcards, threads, resources):
    """What changes no weight. `threads` makes it untracked: another interval must not train again."""
    chosen = settings.pretrain
    flags = f"--checkpoint-seconds {chosen.checkpoint_seconds} --keep-checkpoints {chosen.keep_checkpoints}"
    flags += f" --max-skipped {chosen.max_skipped}"
    flags += " --extend" if chosen.extend else ""
    flags += " --tensorboard" if chosen.tensorboard else ""
    flags += time_flag(resources) + processes_flag(resources)
    if chosen.variant(wildcards.method).init == "imagenet":
        for weights in first_weights(wildcards):
            flags += f" --model.weights {shlex.quote(weights)}"
    return flags


def classify_flags(wildcards, resources):
    """What changes no weight, untracked as above."""
    flags = f"--checkpoint-seconds {settings.classify.checkpoint_seconds}"
    return flags + (
        processes_flag(resources) if wildcards.arm.endswith("-finetune") else ""
    )


def pretrain_threads():
    """On few cores, single-threaded runs side by side beat many threads in sequence; cores are shared among runs.

    A cluster's jobs share none, and inside of a job the node's cores are not all its own.
    """
    try:
        cores = workflow.cores
    except WorkflowError:  # no --cores: a graph is drawn
        cores = None
    if cores is None or on_cluster():
        return 8  # or fewer, where the profile says so
    return max(1, cores // max(1, len(pretrain_runs())))


def cohort_tables(wildcards):
    """What the cohort is read from, but never the tens of thousands of images: a changed table reads it again."""
    cohort = settings.cohort
    if cohort.name == "phantom":
        return rules.phantom.output.files
    found = []
    if cohort.name == "olives":  # the published tables lie at most three folders down
        for name in (
            "Biomarker_Clinical_Data_Images.csv",
            "Clinical_Data_Images.xlsx",
            "OLIVES_Dataset_Labels.zip",
            "Training_Biomarker_Data.csv",
            "Training_Unlabeled_Clinical_Data.xlsx",
            "*.parquet",
        ):
            for depth in ("", "*/", "*/*/", "*/*/*/"):
                found += sorted(cohort.root.glob(depth + name))
    named = [cohort.table, cohort.clinical, cohort.split.file]
    return [str(path) for path in dict.fromkeys([*found, *named]) if path]


def cohort_settings(wildcards):
    """The cohort's own settings; the phantom is read from where the rule `phantom` wrote it."""
    values = settings.cohort.model_dump(mode="json", exclude={"name", "phantom"})
    if settings.cohort.name == "phantom":
        values["root"] = rules.phantom.output.files
    return as_json(values)


def start_of(wildcards):
    """Where an arm or an explained network starts: a run's weights, a file of ImageNet weights, or nothing."""
    init = wildcards.get("init") or init_of(wildcards.arm)
    if init == "imagenet":
        weights = settings.model(wildcards.backbone).weights
        return [str(weights)] if weights else []
    if init == "scratch":
        return []
    run = pretrain_run(init, wildcards.backbone, int(wildcards.seed), wildcards.fold)
    return [f"{run}/backbone.safetensors", f"{run}/backbone.json"]


def start_flag(wildcards, input):
    """`start` as the command takes it: the folder of a run, or a file of weights."""
    if not input.start:
        return ""
    if (wildcards.get("init") or init_of(wildcards.arm)) == "imagenet":
        return f"--model.weights {shlex.quote(str(input.start))}"
    return f"--pretrained {shlex.quote(str(Path(input.start[0]).parent))}"


def explain_runs():
    """Every network that is looked into."""
    chosen, shown = settings.pretrain, settings.explain
    inits = ["scratch", *chosen.methods] if shown.inits is None else shown.inits
    return [
        f"results/{COHORT}/explain/{init}/{backbone}/fold0-seed{seed}"
        for init in inits
        for backbone in (
            chosen.backbones_of(init) if init in chosen.methods else chosen.backbones
        )
        for seed in shown.seeds
    ]


def classifiers_of(wildcards):
    """The classifiers that start from these weights and make a map a label, at the largest fraction."""
    chosen, wanted = settings.classify, settings.explain.arms
    if wanted is None:
        wanted = [arm for arm in chosen.arms if arm.endswith("-linear")]
    return [
        f"results/{COHORT}/classify/{arm}/{wildcards.backbone}/f{fraction_text(max(chosen.fractions_at(arm)))}/"
        f"fold0-seed{wildcards.seed}/classifier.{kind}"
        for arm in wanted
        if init_of(arm) == wildcards.init and int(wildcards.seed) in chosen.seeds
        for kind in ("safetensors", "json")
    ]


def explain_flags(wildcards, input):
    """The classifiers' folders and the folder of the masks, as the command takes them."""
    folders = dict.fromkeys(Path(path).parent for path in input.classifiers)
    flags = " ".join(shlex.quote(str(folder)) for folder in folders)
    root = input.masks or settings.cohort.files
    return (f"--classifier {flags}" if folders else "") + (
        f" --masks-root {shlex.quote(str(root))}" if root else ""
    )


# Where envs/octdino.post-deploy.sh installs octdino from, for those who run with --sdm conda.
os.environ.setdefault("OCTDINO_SOURCE", str(Path(workflow.current_basedir).parents[1]))
settings = read_settings()
COHORT = settings.cohort.results_name
FOLDS = range(settings.cohort.split.count)  # which patients are test
# One GPU job at a time where this machine has a GPU (profiles/default limits it), none counted where it has none.
GPU = int(any(Path(os.sep, "dev", device).exists() for device in ("nvidia0", "kfd")))
