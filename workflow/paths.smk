# Paths: which runs the settings ask for, where their folders are, and what each starts from.
import functools
from pathlib import Path

from octdino.config import Arm, fraction_text, known_scans

COHORT = settings.cohort.results_name
FOLDS = range(settings.cohort.split.count)  # which patients are test


@functools.cache
def scans():
    """Return the number of scans, as far as it is known before the cohort was made; None where it is not."""
    return known_scans(settings.cohort, Path("results", COHORT))


def init_of(arm):
    """Return the init of an arm: scratch, imagenet or a method."""
    return Arm.parse(arm).init


def init_in(wildcards):
    """Return the init of a job: its wildcard, or that of its arm."""
    return wildcards.get("init") or init_of(wildcards.arm)


def backbones_of(init):
    """Return the backbones that are used with an init: its own, those of the method, or all."""
    return settings.backbones_of(init)


def needs_no_run(init):
    """Whether an init starts from random, ImageNet's or published weights: from no pretraining run."""
    return init in ("scratch", "imagenet") or settings.published(init)


def pretrain_run(method, backbone, seed, fold):
    """Return the folder of the pretraining that a classifier starts from: of the same seed, or of the first one."""
    seeds = settings.pretrain.seeds
    fold = "all" if settings.pretrain.scope == "all" else fold
    seed = seed if seed in seeds else seeds[0]
    return f"results/{COHORT}/pretrain/{method}/{backbone}/fold{fold}-seed{seed}"


def pretrain_runs():
    """Return the folders of all pretraining runs."""
    chosen = settings.pretrain
    return [
        pretrain_run(method, backbone, seed, fold)
        for method in chosen.methods
        for backbone in chosen.backbones_of(method)
        for seed in chosen.seeds
        for fold in FOLDS[: 1 if chosen.scope == "all" else None]
    ]


def starts_of_arms():
    """Return the folders of the pretraining runs that arms start from."""
    chosen = settings.classify
    return list(
        dict.fromkeys(
            pretrain_run(init_of(arm), backbone, seed, fold)
            for arm in chosen.arms
            for backbone in backbones_of(init_of(arm))
            for seed in chosen.seeds
            for fold in FOLDS
            if not needs_no_run(init_of(arm))
        )
    )


def arm_folders(arms):
    """Return {arm}/{backbone}/f{fraction} of each arm, for the backbones of its init and its fractions."""
    return [
        f"{arm}/{backbone}/f{fraction_text(fraction)}"
        for arm in arms
        for backbone in backbones_of(init_of(arm))
        for fraction in settings.classify.fractions_at(arm)
    ]


def classify_runs():
    """Return the folders of all classifiers, clinical baselines included."""
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


def explain_runs():
    """Return the folders of all explained networks."""
    shown = settings.explain
    inits = shown.inits
    if inits is None:
        inits = ["scratch", *settings.pretrain.methods, *settings.published_inits]
    return [
        f"results/{COHORT}/explain/{init}/{backbone}/fold0-seed{seed}"
        for init in inits
        for backbone in backbones_of(init)
        for seed in shown.seeds
    ]


def external_of(name):
    """Return the settings of the external cohort of a name."""
    return next(each for each in settings.evaluate.external if each.name == name)


def external_folders():
    """Return the folders of the external cohorts."""
    return [
        f"results/{COHORT}/external/{each.name}" for each in settings.evaluate.external
    ]


def external_folders_of(files):
    """Return the folders of external cohorts by files in cohort/, which a storage plugin may have staged elsewhere."""
    return list(dict.fromkeys(str(Path(file).parent.parent) for file in files))


def external_cohorts():
    """Return the files of the external cohorts that the cohort stage writes."""
    return [
        f"{folder}/cohort/{name}"
        for folder in external_folders()
        for name in ("scans.h5", "manifest.csv", "splits.csv")
    ]


def scored_runs():
    """Return the folders of the classifiers that score external cohorts: all but the clinical baselines."""
    if not settings.evaluate.external:
        return []
    return [run for run in classify_runs() if "/classify/clinical/" not in run]


def external_scores():
    """Return the folders of the scores of each external cohort by each classifier."""
    trained = Path("results", COHORT, "classify")
    return [
        f"{folder}/scores/{Path(run).relative_to(trained).as_posix()}"
        for folder in external_folders()
        for run in scored_runs()
    ]


def external_results():
    """Return the files that compare external with internal performance."""
    if not settings.evaluate.external:
        return []
    return [
        f"results/{COHORT}/evaluate/external.{kind}" for kind in ("csv", "json", "svg")
    ]


def cohort_tables(wildcards):
    """Return the tables of the cohort as inputs (a changed table reads it again), not the many thousand images."""
    if settings.cohort.name == "phantom":
        return rules.phantom.output.files
    return tables_of(settings.cohort)


def external_tables(wildcards):
    """Return the same of an external cohort."""
    cohort = external_of(wildcards.external).cohort
    if cohort.name == "phantom":
        return f"results/{COHORT}/external/{wildcards.external}/cohort/files"
    return tables_of(cohort)


def tables_of(cohort):
    """Return the tables of a cohort that has files of its own."""
    found = []
    if cohort.name == "olives":  # the published tables are at most three folders deep
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
    if cohort.name == "octdl":
        for depth in ("", "*/", "*/*/"):
            found += sorted(cohort.root.glob(f"{depth}OCTDL_labels.csv"))
    given = [cohort.table_file, cohort.clinical, cohort.split.file]
    return [str(path) for path in dict.fromkeys([*found, *given]) if path]


def first_weights(wildcards):
    """Return the files that a pretraining starts from: weights from outside, or those of an earlier run."""
    variant = settings.pretrain.variant(wildcards.method)
    if variant.init is None:
        return []
    if variant.starts_from_file(wildcards.backbone):
        return settings.model(wildcards.backbone).weights_files
    folder = variant.start_folder(wildcards.backbone, wildcards.fold, wildcards.seed)
    return [f"{folder}/backbone.safetensors", f"{folder}/backbone.json"]


def start_of(wildcards):
    """Return the files that an arm or an explained network starts from: a run's, weights from outside, or none.

    Weights from outside may have several files, their own first; none where timm downloads them.
    """
    init = init_in(wildcards)
    model = settings.model(wildcards.backbone)
    if settings.published(init) and model.preprocessor_file:
        return [*model.weights_files, model.preprocessor_file]
    if init == "imagenet" or settings.published(init):
        return model.weights_files
    if init == "scratch":
        return []
    run = pretrain_run(init, wildcards.backbone, int(wildcards.seed), wildcards.fold)
    return [f"{run}/backbone.safetensors", f"{run}/backbone.json"]


def classifiers_of(wildcards):
    """Return the classifiers, at the largest fraction, that start from these weights and give one map per label."""
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
