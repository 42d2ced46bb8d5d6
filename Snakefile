# The pipeline, for `snakemake --cores 8 results/table1.csv`: the graph of src/rap/stages.py, its jobs side by side.
from snakemake.utils import min_version

min_version("9.0")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/runs.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        results(ablations=False),


rule ablations:
    input:
        results(ablations=True),
