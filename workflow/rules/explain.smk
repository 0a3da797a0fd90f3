# explain: store + backbone + embeddings → attention, one map per label, masks, Jaccard, nearest neighbors


rule explain:
    input:
        store="results/{cohort}/cohort/scans.h5",
        manifest="results/{cohort}/cohort/manifest.csv",
        splits="results/{cohort}/cohort/splits.csv",
        start=start_of,
        embeddings=embeddings_of,
        classifiers=classifiers_of,
        masks=rules.phantom.output.files if settings.cohort.name == "phantom" else [],
    output:
        card="results/{cohort}/explain/{init}/{backbone}/fold{fold}-seed{seed}/explain.json",
        tables=expand(
            "results/{{cohort}}/explain/{{init}}/{{backbone}}/fold{{fold}}-seed{{seed}}/{table}.csv",
            table=["overlap", "jaccard", "jaccard_images", "retrieval", "embedding"],
        ),
        maps="results/{cohort}/explain/{init}/{backbone}/fold{fold}-seed{seed}/maps.safetensors",
    log:
        "logs/{cohort}/explain/{init}.{backbone}.fold{fold}-seed{seed}.log",
    benchmark:
        "results/{cohort}/benchmarks/explain.{init}.{backbone}.fold{fold}-seed{seed}.tsv"
    conda:
        "../../envs/octdino.yaml"
    threads: 1
    resources:
        mem_mb=grows(8000),
        runtime=grows(120),
        gpu=GPU,
    params:
        version=STAGES["explain"],
        settings=explain_settings,
        settings_file=in_file(explain_settings),
        model=init_model,
        start=start_flag,
        flags=explain_flags,
        out=subpath(output.card, parent=True),
    shell:
        "exec octdino explain {wildcards.init} --store {input.store:q} --backbone {wildcards.backbone:q}"
        " --model {params.model:q} {params.start} --embeddings {input.embeddings:q} {params.flags} --settings {params.settings_file:q}"
        " --seed {wildcards.seed} --threads {threads} --out {params.out:q} > {log:q} 2>&1"
