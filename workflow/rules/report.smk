# report: all tables and figures → one HTML page


rule report:
    input:
        # Without arms there is nothing to evaluate; the page shows the rest.
        evaluated=list(rules.evaluate.output) if settings.classify.arms else [],
        external=external_results(),
        findings="results/{cohort}/audit/findings.csv",
        explained=[f"{run}/explain.json" for run in explain_runs()],
        manifest="results/{cohort}/cohort/manifest.csv",
        quarantine="results/{cohort}/cohort/quarantine.csv",
        splits="results/{cohort}/cohort/splits.csv",
        histories=[f"{run}/history.csv" for run in pretrain_runs()],
    output:
        page=report(
            "results/{cohort}/report/report.html",
            category="The page",
            caption="../report/page.rst",
        ),
        cards=report(
            expand(
                "results/{{cohort}}/report/{card}.md",
                card=["data_card", "model_card", "checklist"],
            ),
            category="The page",
            caption="../report/cards.rst",
        ),
        methods=report(
            "results/{cohort}/report/methods.md",
            category="The page",
            caption="../report/methods.rst",
        ),
        references="results/{cohort}/report/references.bib",
    log:
        "logs/{cohort}/report/report.log",
    benchmark:
        "results/{cohort}/benchmarks/report.tsv"
    conda:
        "../../envs/tables.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(60),
        gpu=0,
    params:
        version=STAGES["report"],
        settings=report_settings,
        settings_file=in_file(report_settings),
        config=whole_config,
        config_file=in_file(whole_config),
        results=subpath(output.page, ancestor=2),
    shell:
        "exec octdino report --results {params.results:q} --settings {params.settings_file:q} --config {params.config_file:q}"
        " --out {output.page:q} > {log:q} 2>&1"
