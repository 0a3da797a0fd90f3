# pretrain: store → backbone weights, history


rule pretrain:
    input:
        store="results/{cohort}/cohort/scans.h5",
        manifest="results/{cohort}/cohort/manifest.csv",
        splits="results/{cohort}/cohort/splits.csv",
        start=first_weights,
    output:
        # Written once, at the end. Checkpoints live in the undeclared folder `state` beside them: Snakemake deletes
        # the declared outputs of a failed or restarted job.
        weights="results/{cohort}/pretrain/{method}/{backbone}/fold{fold}-seed{seed}/backbone.safetensors",
        card="results/{cohort}/pretrain/{method}/{backbone}/fold{fold}-seed{seed}/backbone.json",
        history="results/{cohort}/pretrain/{method}/{backbone}/fold{fold}-seed{seed}/history.csv",
    log:
        "logs/{cohort}/pretrain/{method}.{backbone}.fold{fold}-seed{seed}.log",
    benchmark:
        "results/{cohort}/benchmarks/pretrain.{method}.{backbone}.fold{fold}-seed{seed}.tsv"
    priority: 10  # the longest jobs first; arms without pretraining run beside them
    conda:
        "../../envs/octdino.yaml"
    threads: pretrain_threads()
    resources:
        mem_mb=grows_with_scans("pretrain"),
        runtime=1440,  # it does not grow: a retried run resumes
        gpu=GPU,
    params:
        version=STAGES["pretrain"],
        settings=pretrain_settings,
        settings_file=in_file(pretrain_settings),
        model=pretrain_model,
        flags=pretrain_flags,
        srun=over_nodes,
        out=subpath(output.weights, parent=True),
    shell:
        "exec {params.srun}octdino pretrain {wildcards.method} --store {input.store:q} --backbone {wildcards.backbone:q}"
        " --model {params.model:q} --settings {params.settings_file:q} {params.flags}"
        " --fold {wildcards.fold} --seed {wildcards.seed} --threads {threads} --out {params.out:q} > {log:q} 2>&1"
