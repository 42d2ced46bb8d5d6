"""Finished runs side by side."""


rule table:
    input:
        runs=lambda job: run_files(
            PARAMS.tables[f"table{job.number}"].variants,
            "run.json",
            "costs.json",
            "metrics.json",
            "ranks.parquet",
        ),
        code=code("table"),
        pins=pins_of_table,
    output:
        table="results/table{number}.csv",
        text="results/table{number}.md",
        picture="results/table{number}.png",
        costs="results/costs{number}.csv",
    log:
        "logs/table{number}.log",
    conda:
        "../envs/rap.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    shell:
        "rap table --table table{wildcards.number} > {log} 2>&1"
