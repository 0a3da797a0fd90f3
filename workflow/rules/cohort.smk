# cohort: raw files and label tables → manifest, quarantine, splits, HDF5 store


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
