# cohort: raw files and label tables → manifest, quarantine, splits, HDF5 store; the same of external cohorts


rule phantom:
    output:
        files=directory(f"results/{COHORT}/cohort/files"),
    log:
        f"logs/{COHORT}/cohort/phantom.log",
    benchmark:
        f"results/{COHORT}/benchmarks/phantom.tsv"
    conda:
        "../../envs/octdino.yaml"
    threads: 8
    resources:
        mem_mb=grows(2000),
        runtime=grows(60),
        gpu=0,
    params:
        version=STAGES["cohort"],
        settings=phantom_settings,
        settings_file=in_file(phantom_settings),
    shell:
        "exec octdino phantom --settings {params.settings_file:q} --workers {threads} --out {output.files:q} > {log:q} 2>&1"


rule cohort:
    input:
        cohort_tables,
    output:
        manifest="results/{cohort}/cohort/manifest.csv",
        quarantine="results/{cohort}/cohort/quarantine.csv",
        splits="results/{cohort}/cohort/splits.csv",
        store="results/{cohort}/cohort/scans.h5",
    log:
        "logs/{cohort}/cohort/cohort.log",
    benchmark:
        "results/{cohort}/benchmarks/cohort.tsv"
    conda:
        "../../envs/octdino.yaml"
    threads: 8
    resources:
        mem_mb=grows_with_scans("cohort"),
        runtime=grows(240),
        gpu=0,
    params:
        version=STAGES["cohort"],
        kind=settings.cohort.name,
        settings=cohort_settings,
        settings_file=in_file(cohort_settings),
        out=subpath(output.store, parent=True),
    shell:
        "exec octdino cohort {params.kind} --settings {params.settings_file:q} --workers {threads}"
        " --out {params.out:q} > {log:q} 2>&1"


use rule phantom as external_phantom with:
    output:
        files=directory("results/{cohort}/external/{external}/cohort/files"),
    log:
        "logs/{cohort}/external/{external}/external_phantom.log",
    benchmark:
        "results/{cohort}/benchmarks/external_phantom.{external}.tsv"
    params:
        settings=external_phantom_settings,
        settings_file=in_file(external_phantom_settings),


# Its command and its memory differ from those of `cohort`.
rule external_cohort:
    input:
        external_tables,
    output:
        manifest="results/{cohort}/external/{external}/cohort/manifest.csv",
        quarantine="results/{cohort}/external/{external}/cohort/quarantine.csv",
        splits="results/{cohort}/external/{external}/cohort/splits.csv",
        store="results/{cohort}/external/{external}/cohort/scans.h5",
    log:
        "logs/{cohort}/external/{external}/external_cohort.log",
    benchmark:
        "results/{cohort}/benchmarks/external_cohort.{external}.tsv"
    conda:
        "../../envs/octdino.yaml"
    threads: 8
    resources:
        mem_mb=grows(8000),
        runtime=grows(240),
        gpu=0,
    params:
        version=STAGES["cohort"],
        kind=lambda wildcards: external_of(wildcards.external).cohort.name,
        settings=external_cohort_settings,
        settings_file=in_file(external_cohort_settings),
        out=subpath(output.store, parent=True),
    shell:
        "exec octdino cohort {params.kind} --test-only --settings {params.settings_file:q} --workers {threads}"
        " --out {params.out:q} > {log:q} 2>&1"
