# The pipeline, for `snakemake --cores 8 results/table1.csv`: dvc.yaml's graph, its jobs side by side.
from snakemake.utils import min_version

min_version("9.0")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/runs.smk"
include: "workflow/rules/tables.smk"


rule all:
    default_target: True
    input:
        expand("results/table{number}.csv", number=TABLES["runs"]),
        run_files(PARAMS.variants, "metrics.json"),


rule ablations:
    input:
        expand("results/table{number}.csv", number=TABLES["ablations"]),
        run_files(PARAMS.ablations, "metrics.json"),
