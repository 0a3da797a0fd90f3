# audit: store + tables + runs → findings; and the verdict on them


rule audit:
    input:
        store="results/{cohort}/cohort/scans.h5",
        manifest="results/{cohort}/cohort/manifest.csv",
        splits="results/{cohort}/cohort/splits.csv",
        cards=[
            *(f"{run}/backbone.json" for run in pretrain_runs()),
            *(f"{run}/classifier.json" for run in classify_runs()),
        ],
        weights=[
            *(f"{run}/backbone.safetensors" for run in pretrain_runs()),
            *(
                f"{run}/classifier.safetensors"
                for run in classify_runs()
                if "/classify/clinical/" not in run
            ),
        ],
        predictions=[f"{run}/predictions.csv" for run in classify_runs()],
        external=external_cohorts(),
    output:
        findings=report(
            "results/{cohort}/audit/findings.csv",
            category="Comparison",
            caption="../report/findings.rst",
        ),
        card="results/{cohort}/audit/audit.json",
    log:
        "logs/{cohort}/audit/audit.log",
    benchmark:
        "results/{cohort}/benchmarks/audit.tsv"
    conda:
        "../../envs/octdino.yaml"
    threads: 1
    resources:
        mem_mb=grows_with_scans("audit"),
        runtime=grows(120),
        gpu=0,
    params:
        version=STAGES["audit"],
        settings=audit_settings,
        settings_file=in_file(audit_settings),
        # From the inputs, whose folders are elsewhere where a storage plugin stages them.
        # External cohorts are among them, so that without any the rule is as it was before there were such.
        runs=lambda wildcards, input: [
            *(str(Path(card).parent) for card in input.cards),
            *external_words(input.external),
        ],
        out=subpath(output.findings, parent=True),
    shell:
        "exec octdino audit --store {input.store:q} --settings {params.settings_file:q} --out {params.out:q}"
        " {params.runs:q} > {log:q} 2>&1"


# After the page, which shows the findings: a job that fails loses its outputs, so the audit itself never fails on them.
rule verdict:
    input:
        findings="results/{cohort}/audit/findings.csv",
        page=ancient("results/{cohort}/report/report.html"),
    output:
        "results/{cohort}/audit/passed",
    log:
        "logs/{cohort}/audit/verdict.log",
    benchmark:
        "results/{cohort}/benchmarks/verdict.tsv"
    conda:
        "../../envs/octdino.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(10),
        gpu=0,
    shell:
        "exec octdino verdict {input.findings:q} > {output:q} 2> {log:q}"
