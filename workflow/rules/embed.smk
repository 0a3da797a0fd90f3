# embed: store + backbone → features of every scan, once per run


def trains_backbone(wildcards):
    """Whether an arm trains its backbone; all others read embeddings."""
    return wildcards.arm.endswith("-finetune")


def embeddings_of(wildcards):
    """The embeddings that an arm or an explained network reads: of the pretraining run that it starts from.

    Those of ImageNet weights depend on no seed: the first classifier seed stands for all.
    """
    init = wildcards.get("init") or init_of(wildcards.arm)
    if wildcards.get("arm") and trains_backbone(wildcards):
        return []
    seed, seeds = int(wildcards.seed), settings.pretrain.seeds
    if init == "imagenet":
        seed = settings.classify.seeds[0]
    elif init != "scratch" and seed not in seeds:
        seed = seeds[0]
    return f"results/{COHORT}/embed/{init}/{wildcards.backbone}/fold{wildcards.fold}-seed{seed}/embeddings.h5"


def embed_settings(wildcards):
    """The section `embed`; without a size of its own that of the input of fine-tuned arms."""
    size = settings.embed.size or settings.classify.augment.global_size
    return as_json(settings.embed.model_dump(mode="json") | {"size": size})


def classify_start(wildcards, input):
    """What an arm starts from, as the command takes it: embeddings; or the backbone and its first weights."""
    if input.embeddings:
        return f"--embeddings {shlex.quote(str(input.embeddings))}"
    model = shlex.quote(model_json(wildcards.backbone))
    return f"--model {model} {start_flag(wildcards, input)}".rstrip()


rule embed:
    input:
        store="results/{cohort}/cohort/scans.h5",
        manifest="results/{cohort}/cohort/manifest.csv",
        splits="results/{cohort}/cohort/splits.csv",
        start=start_of,
    output:
        "results/{cohort}/embed/{init}/{backbone}/fold{fold}-seed{seed}/embeddings.h5",
    log:
        "logs/{cohort}/embed/{init}.{backbone}.fold{fold}-seed{seed}.log",
    benchmark:
        "results/{cohort}/benchmarks/embed.{init}.{backbone}.fold{fold}-seed{seed}.tsv"
    conda:
        "../../envs/octdino.yaml"
    threads: 1
    resources:
        mem_mb=grows(8000),
        runtime=grows(480),
        gpu=GPU,
    params:
        version=STAGES["embed"],
        settings=embed_settings,
        model=lambda wildcards: model_json(wildcards.backbone),
        start=start_flag,
        out=subpath(output[0], parent=True),
    shell:
        "exec octdino embed {wildcards.init} --store {input.store:q} --backbone {wildcards.backbone:q}"
        " --model {params.model:q} {params.start} --settings {params.settings:q} --fold {wildcards.fold}"
        " --seed {wildcards.seed} --threads {threads} --out {params.out:q} > {log:q} 2>&1"
