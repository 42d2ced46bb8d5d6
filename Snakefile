# `snakemake` in this folder runs workflow/Snakefile, which is where the Snakemake catalogue looks for a workflow.
include: "workflow/Snakefile"


workflow.default_target = "all"  # an included file sets none
