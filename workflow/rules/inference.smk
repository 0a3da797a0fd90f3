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
