# inference: the best classifier on validation patients → one folder with all that a prediction for a new scan needs


rule inference:
    input:
        store="results/{cohort}/cohort/scans.h5",
        manifest="results/{cohort}/cohort/manifest.csv",
        splits="results/{cohort}/cohort/splits.csv",
        metrics="results/{cohort}/evaluate/metrics.csv",
        backbones=[
            f"{run}/backbone.{kind}"
            for run in starts_of_arms()
            for kind in ("safetensors", "json")
        ],
        classifiers=[
            f"{run}/{name}"
            for run in classify_runs()
            if "/classify/clinical/" not in run
            for name in (
                "classifier.safetensors",
                "classifier.json",
                "predictions.csv",
            )
        ],
    output:
        metadata="results/{cohort}/model/model.json",
        weights=expand(
            "results/{{cohort}}/model/{name}.safetensors",
            name=["backbone", "head", "density"],
        ),
    log:
        "logs/{cohort}/inference/model.log",
    benchmark:
        "results/{cohort}/benchmarks/inference.tsv"
    conda:
        "../../envs/octdino.yaml"
    threads: 1
    resources:
        mem_mb=grows(8000),
        runtime=grows(60),
        gpu=0,
    params:
        version=STAGES["inference"],
        results=subpath(output.metadata, ancestor=2),
        out=subpath(output.metadata, parent=True),
    shell:
        "exec octdino models {params.results:q} --out {params.out:q} > {log:q} 2>&1"


# Every classifier scores every external cohort; the label maps are applied later, so they score nothing again.
rule score:
    input:
        external="results/{cohort}/external/{external}/cohort/scans.h5",
        tables=expand(
            "results/{{cohort}}/external/{{external}}/cohort/{name}.csv",
            name=["manifest", "splits"],
        ),
        store="results/{cohort}/cohort/scans.h5",
        manifest="results/{cohort}/cohort/manifest.csv",
        splits="results/{cohort}/cohort/splits.csv",
        start=start_of,
        classifier="results/{cohort}/classify/{arm}/{backbone}/f{fraction}/fold{fold}-seed{seed}/classifier.json",
        weights="results/{cohort}/classify/{arm}/{backbone}/f{fraction}/fold{fold}-seed{seed}/classifier.safetensors",
        predictions="results/{cohort}/classify/{arm}/{backbone}/f{fraction}/fold{fold}-seed{seed}/predictions.csv",
    output:
        scores="results/{cohort}/external/{external}/scores/{arm}/{backbone}/f{fraction}/fold{fold}-seed{seed}/scores.csv",
        card="results/{cohort}/external/{external}/scores/{arm}/{backbone}/f{fraction}/fold{fold}-seed{seed}/scores.json",
    log:
        "logs/{cohort}/external/{external}/score.{arm}.{backbone}.f{fraction}.fold{fold}-seed{seed}.log",
    benchmark:
        "results/{cohort}/benchmarks/score.{external}.{arm}.{backbone}.f{fraction}.fold{fold}-seed{seed}.tsv"
    conda:
        "../../envs/octdino.yaml"
    threads: 1
    resources:
        mem_mb=grows(8000),
        runtime=grows(120),
        gpu=GPU,
    params:
        version=STAGES["inference"],
        classifier=subpath(input.classifier, parent=True),
        results=subpath(input.store, ancestor=2),
        out=subpath(output.scores, parent=True),
    shell:
        "exec octdino score {params.classifier:q} --results {params.results:q} --store {input.external:q}"
        " --threads {threads} --out {params.out:q} > {log:q} 2>&1"
