# evaluate: predictions → metrics with intervals, comparisons


rule evaluate:
    input:
        manifest="results/{cohort}/cohort/manifest.csv",
        splits="results/{cohort}/cohort/splits.csv",
        store="results/{cohort}/cohort/scans.h5",
        predictions=[f"{run}/predictions.csv" for run in classify_runs()],
        cards=[f"{run}/classifier.json" for run in classify_runs()],
        methods=[f"{run}/backbone.json" for run in starts_of_arms()],  # figures group arms by family
    output:
        metrics=report(
            "results/{cohort}/evaluate/metrics.csv",
            category="Comparison",
            caption="../report/metrics.rst",
        ),
        comparison=report(
            "results/{cohort}/evaluate/comparison.csv",
            category="Comparison",
            caption="../report/comparison.rst",
        ),
        subgroups=report(
            "results/{cohort}/evaluate/subgroups.csv",
            category="Comparison",
            caption="../report/subgroups.rst",
        ),
        efficiency=report(
            "results/{cohort}/evaluate/label_efficiency.csv",
            category="Comparison",
            caption="../report/label_efficiency.rst",
        ),
        power=report(
            "results/{cohort}/evaluate/power.csv",
            category="Comparison",
            caption="../report/power.rst",
        ),
        figures=report(
            expand(
                "results/{{cohort}}/evaluate/{figure}.svg",
                figure=[
                    "comparison",
                    "difference",
                    "label_efficiency",
                    "roc",
                    "pr",
                    "reliability",
                    "calibration",
                    "subgroups",
                    "labels",
                    "label_difference",
                    "patients_needed",
                ],
            ),
            category="Figures",
            caption="../report/figures.rst",
        ),
    log:
        "logs/{cohort}/evaluate/evaluate.log",
    benchmark:
        "results/{cohort}/benchmarks/evaluate.tsv"
    conda:
        "../../envs/tables.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(120),
        gpu=0,
    params:
        version=STAGES["evaluate"],
        settings=evaluate_settings,
        settings_file=in_file(evaluate_settings),
        out=subpath(output.metrics, parent=True),
    shell:
        "exec octdino evaluate --manifest {input.manifest:q} --settings {params.settings_file:q} --out {params.out:q}"
        " {input.predictions:q} > {log:q} 2>&1"


rule external:
    input:
        manifest="results/{cohort}/cohort/manifest.csv",
        splits="results/{cohort}/cohort/splits.csv",
        store="results/{cohort}/cohort/scans.h5",
        cohorts=external_cohorts(),
        scores=[
            f"{folder}/scores.{kind}"
            for folder in external_scores()
            for kind in ("csv", "json")
        ],
        predictions=[f"{run}/predictions.csv" for run in scored_runs()],
        cards=[f"{run}/classifier.json" for run in scored_runs()],
    output:
        table=report(
            "results/{cohort}/evaluate/external.csv",
            category="Comparison",
            caption="../report/external.rst",
        ),
        card="results/{cohort}/evaluate/external.json",
        figure=report(
            "results/{cohort}/evaluate/external.svg",
            category="Figures",
            caption="../report/figures.rst",
        ),
    log:
        "logs/{cohort}/evaluate/external.log",
    benchmark:
        "results/{cohort}/benchmarks/external.tsv"
    conda:
        "../../envs/tables.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(120),
        gpu=0,
    params:
        version=STAGES["evaluate"],
        settings=external_settings,
        settings_file=in_file(external_settings),
        folders=lambda wildcards, input: external_folders_of(input.cohorts),
        out=subpath(output.table, parent=True),
    shell:
        "exec octdino external --manifest {input.manifest:q} --settings {params.settings_file:q}"
        " --external {params.folders:q} --out {params.out:q} {input.predictions:q} > {log:q} 2>&1"
