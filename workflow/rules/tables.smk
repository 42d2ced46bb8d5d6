"""Finished runs side by side."""


rule table:
    input:
        runs=lambda job: expand(
            f"{RUN}/{{file}}.json",
            variant=PARAMS.tables[f"table{job.number}"].variants,
            seed=PARAMS.seeds,
            file=("run", "costs", "metrics"),
        ),
        code=code("table"),
        pins=pins("table"),
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
        mem_mb=2000,
    shell:
        "rap table --table table{wildcards.number} > {log} 2>&1"
