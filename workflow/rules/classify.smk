# classify: store or embeddings, and labels → predictions, one folder per arm


rule classify:
    input:
        store="results/{cohort}/cohort/scans.h5",
        manifest="results/{cohort}/cohort/manifest.csv",
        splits="results/{cohort}/cohort/splits.csv",
        start=lambda wildcards: (
            start_of(wildcards) if trains_backbone(wildcards) else []
        ),
        embeddings=embeddings_of,
    output:
        predictions="results/{cohort}/classify/{arm}/{backbone}/f{fraction}/fold{fold}-seed{seed}/predictions.csv",
        weights="results/{cohort}/classify/{arm}/{backbone}/f{fraction}/fold{fold}-seed{seed}/classifier.safetensors",
        card="results/{cohort}/classify/{arm}/{backbone}/f{fraction}/fold{fold}-seed{seed}/classifier.json",
    log:
        "logs/{cohort}/classify/{arm}.{backbone}.f{fraction}.fold{fold}-seed{seed}.log",
    benchmark:
        "results/{cohort}/benchmarks/classify.{arm}.{backbone}.f{fraction}.fold{fold}-seed{seed}.tsv"
    group:
        probe_group  # on a cluster
    conda:
        "../../envs/octdino.yaml"
    threads: 1
    resources:
        mem_mb=grows_with_scans("classify"),
        runtime=grows(480),
        gpu=lambda wildcards: GPU if trains_backbone(wildcards) else 0,
    params:
        version=STAGES["classify"],
        settings=classify_settings,
        settings_file=in_file(classify_settings),
        model=classify_model,
        start=classify_start,
        flags=classify_flags,
        out=subpath(output.predictions, parent=True),
    shell:
        "exec octdino classify {wildcards.arm} --store {input.store:q} --backbone {wildcards.backbone:q}"
        " {params.model} {params.start} --settings {params.settings_file:q} {params.flags}"
        " --fraction {wildcards.fraction} --fold {wildcards.fold} --seed {wildcards.seed} --threads {threads}"
        " --out {params.out:q} > {log:q} 2>&1"


rule clinical:
    input:
        manifest="results/{cohort}/cohort/manifest.csv",
        splits="results/{cohort}/cohort/splits.csv",
        store="results/{cohort}/cohort/scans.h5",
    output:
        predictions="results/{cohort}/classify/clinical/none/f{fraction}/fold{fold}-seed{seed}/predictions.csv",
        card="results/{cohort}/classify/clinical/none/f{fraction}/fold{fold}-seed{seed}/classifier.json",
    log:
        "logs/{cohort}/classify/clinical.none.f{fraction}.fold{fold}-seed{seed}.log",
    benchmark:
        "results/{cohort}/benchmarks/clinical.none.f{fraction}.fold{fold}-seed{seed}.tsv"
    group:
        "clinical"
    conda:
        "../../envs/octdino.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(60),
        gpu=0,
    params:
        version=STAGES["classify"],
        out=subpath(output.predictions, parent=True),
    shell:
        "exec octdino clinical --store {input.store:q} --fraction {wildcards.fraction} --fold {wildcards.fold}"
        " --seed {wildcards.seed} --out {params.out:q} > {log:q} 2>&1"
