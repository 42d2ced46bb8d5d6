# The entry point for `snakemake --cores 8 results/table1.csv` in this folder.
include: "workflow/Snakefile"
