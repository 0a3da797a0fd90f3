# Flags: settings and inputs as the commands take them, and the threads and GPUs of a rule.
import json
import os
import shlex
from pathlib import Path

from octdino.snakemake_settings import settings_file
from snakemake.exceptions import WorkflowError

# One GPU job at a time where this machine has a GPU (profiles/default limits it), none counted where it has none.
GPU = int(any(Path(os.sep, "dev", device).exists() for device in ("nvidia0", "kfd")))


def as_json(values):
    """Return settings as a `params:` value: plain text, in which Snakemake finds every change."""
    return json.dumps(values, sort_keys=True, ensure_ascii=False)


def in_file(text_of):
    """Return a `params:` function of the file with the text that `text_of(wildcards)` returns.

    Beside it the text itself is one of the `params`, in which Snakemake finds every change. This function, whose
    argument `threads` makes it untracked, is for the command.
    """
    name = text_of.__name__.removesuffix("_settings")
    return lambda wildcards, threads: settings_file(workflow, name, text_of(wildcards))


def phantom_settings(wildcards):
    """Return the settings of the synthetic cohort."""
    return as_json(settings.cohort.phantom.model_dump(mode="json"))


def cohort_settings(wildcards):
    """Return the settings of the cohort; the phantom is read from the output of the rule `phantom`."""
    values = settings.cohort.plain(name=True, phantom=True)
    if settings.cohort.name == "phantom":
        values["root"] = rules.phantom.output.files
    return as_json(values)


def pretrain_settings(wildcards):
    """Return the settings on which a pretraining of this method depends."""
    return as_json(settings.pretrain.needed(wildcards.method))


def classify_settings(wildcards):
    """Return the settings on which this arm depends."""
    return as_json(settings.classify.needed(wildcards.arm))


def evaluate_settings(wildcards):
    """Return the section `evaluate`."""
    return as_json(settings.evaluate.needed())


def audit_settings(wildcards):
    """Return the section `audit`."""
    return as_json(settings.audit.model_dump(mode="json"))


def explain_settings(wildcards):
    """Return the settings on which an explained network depends."""
    return as_json(settings.explain.needed())


def external_phantom_settings(wildcards):
    """Return the settings of a synthetic external cohort."""
    chosen = external_of(wildcards.external)
    return as_json(chosen.cohort.phantom.model_dump(mode="json"))


def external_cohort_settings(wildcards):
    """Return the settings of an external cohort, with the image settings of the internal one."""
    chosen = external_of(wildcards.external).titled(settings.cohort.image)
    values = chosen.plain(name=True, phantom=True)
    if chosen.name == "phantom":
        values["root"] = f"results/{COHORT}/external/{wildcards.external}/cohort/files"
    return as_json(values)


def external_settings(wildcards):
    """Return the section `evaluate` with the external cohorts and their label maps."""
    cohorts = [
        {"name": each.name, "labels": each.labels, "cohort": each.cohort.plain()}
        for each in settings.evaluate.external
    ]
    return as_json({**settings.evaluate.needed_externally(), "external": cohorts})


def external_words(files):
    """Return the flag of the audit for the external cohorts of these files as words; none where there are none."""
    folders = external_folders_of(files)
    return ["--external", *folders] if folders else []


def report_settings(wildcards):
    """Return the section `report`."""
    return as_json(settings.report.model_dump(mode="json"))


def whole_config(wildcards):
    """Return the whole configuration, which the page shows."""
    return as_json(settings.shown())


def model_json(model):
    """Return a backbone without its weights, which are an input of the jobs that start from them."""
    return as_json(model.model_dump(mode="json", exclude={"weights"}))


def pretrain_model(wildcards):
    """Return what a pretraining depends on of its backbone."""
    variant = settings.pretrain.variant(wildcards.method)
    starts = variant.starts_from_file(wildcards.backbone)
    return model_json(settings.model(wildcards.backbone).needed(as_start=starts))


def init_model(wildcards):
    """Return what an arm, or embeddings or maps of an init, depend on of the backbone."""
    init = init_in(wildcards)
    return model_json(
        settings.model(wildcards.backbone).needed(
            as_init=settings.published(init), as_imagenet=init == "imagenet"
        )
    )


def start_flag(wildcards, input):
    """Return the flag for the input `start`: the folder of a run, or a file of weights."""
    if not input.start:
        return ""
    if needs_no_run(init_in(wildcards)):
        return f"--model.weights {shlex.quote(str(input.start[0]))}"
    return f"--pretrained {shlex.quote(str(Path(input.start[0]).parent))}"


def pretrain_flags(wildcards, threads, resources):
    """Return the flags that change no weight. The argument `threads` makes them untracked: they never rerun a job."""
    chosen = settings.pretrain
    flags = f"--checkpoint-seconds {chosen.checkpoint_seconds} --keep-checkpoints {chosen.keep_checkpoints}"
    flags += f" --max-skipped {chosen.max_skipped}"
    flags += " --extend" if chosen.extend else ""
    flags += tracking_flag(chosen)
    flags += time_flag(resources) + processes_flag(resources)
    weights = settings.model(wildcards.backbone).weights_file
    if weights and chosen.variant(wildcards.method).starts_from_file(
        wildcards.backbone
    ):
        flags += f" --model.weights {shlex.quote(str(weights))}"
    return flags


def classify_flags(wildcards, resources):
    """Return the flags that change no weight; `resources` makes them untracked."""
    flags = f"--checkpoint-seconds {settings.classify.checkpoint_seconds}"
    if not wildcards.arm.endswith("-finetune"):
        return flags
    return flags + tracking_flag(settings.classify) + processes_flag(resources)


def tracking_flag(section):
    """Return the flag for the trackers of pretrain or classify; none where they are the default."""
    return (
        ""
        if section.tracking == ["auto"]
        else f" --tracking {' '.join(section.tracking)}"
    )


def explain_flags(wildcards, input):
    """Return the flags for the folders of the classifiers and of the ground-truth masks."""
    folders = dict.fromkeys(Path(path).parent for path in input.classifiers)
    flags = " ".join(shlex.quote(str(folder)) for folder in folders)
    root = input.masks or settings.cohort.files
    return (f"--classifier {flags}" if folders else "") + (
        f" --masks-root {shlex.quote(str(root))}" if root else ""
    )


def pretrain_threads():
    """Return the threads of a pretraining: the cores, shared among the runs.

    On few cores, single-threaded runs in parallel are faster than many threads in sequence. Jobs on a cluster share no
    cores, and inside of a job the node's cores are not all its own.
    """
    try:
        cores = workflow.cores
    except WorkflowError:  # no --cores: a graph is drawn
        cores = None
    if cores is None or on_cluster():
        return 8  # or fewer, where the profile limits it
    return max(1, cores // max(1, len(pretrain_runs())))
