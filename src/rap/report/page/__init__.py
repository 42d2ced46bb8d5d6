"""The report stage: one page with the tables, figures and examples of the default run."""
