# embed: store + backbone → features of every scan, once per run


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
        mem_mb=grows_with_scans("embed"),
        runtime=grows(480),
        gpu=GPU,
    params:
        version=STAGES["embed"],
        settings=embed_settings,
        settings_file=in_file(embed_settings),
        model=init_model,
        start=start_flag,
        out=subpath(output[0], parent=True),
    shell:
        "exec octdino embed {wildcards.init} --store {input.store:q} --backbone {wildcards.backbone:q}"
        " --model {params.model:q} {params.start} --settings {params.settings_file:q} --fold {wildcards.fold}"
        " --seed {wildcards.seed} --threads {threads} --out {params.out:q} > {log:q} 2>&1"
