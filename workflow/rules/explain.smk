# explain: store + backbone → attention, maps a label, masks, Jaccard, neighbours


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
        f"results/{COHORT}/classify/{arm}/{wildcards.backbone}/f{max(chosen.fractions_at(arm)):g}"
        f"/fold0-seed{wildcards.seed}/classifier.{kind}"
        for arm in wanted
        if init_of(arm) == wildcards.init and int(wildcards.seed) in chosen.seeds
        for kind in ("safetensors", "json")
    ]


def explain_flags(wildcards, input):
    """The classifiers' folders and the folder of the masks, as the command takes them."""
    folders = dict.fromkeys(Path(path).parent for path in input.classifiers)
    flags = " ".join(shlex.quote(str(folder)) for folder in folders)
    root = input.masks or settings.cohort.root
    return (f"--classifier {flags}" if folders else "") + (
        f" --masks-root {shlex.quote(str(root))}" if root else ""
    )


rule explain:
    input:
        store="results/{cohort}/cohort/scans.h5",
        manifest="results/{cohort}/cohort/manifest.csv",
        start=start_of,
        classifiers=classifiers_of,
        masks=rules.phantom.output.files if COHORT == "phantom" else [],
    output:
        card="results/{cohort}/explain/{init}/{backbone}/fold{fold}-seed{seed}/explain.json",
        tables=expand(
            "results/{{cohort}}/explain/{{init}}/{{backbone}}/fold{{fold}}-seed{{seed}}/{table}.csv",
            table=["overlap", "jaccard", "jaccard_images", "retrieval"],
        ),
    log:
        "logs/{cohort}/explain/{init}.{backbone}.fold{fold}-seed{seed}.log",
    benchmark:
        "results/{cohort}/benchmarks/explain.{init}.{backbone}.fold{fold}-seed{seed}.tsv"
    conda:
        "../../envs/octdino.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=120,
        gpu=GPU,
    params:
        settings=lambda wildcards: as_json(settings.explain.needed()),
        model=lambda wildcards: model_json(wildcards.backbone),
        start=start_flag,
        flags=explain_flags,
        out=subpath(output.card, parent=True),
    shell:
        "exec octdino explain {wildcards.init} --store {input.store:q} --backbone {wildcards.backbone:q}"
        " --model {params.model:q} {params.start} {params.flags} --settings {params.settings:q}"
        " --seed {wildcards.seed} --threads {threads} --out {params.out:q} > {log:q} 2>&1"
