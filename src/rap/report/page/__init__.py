"""The report stage: one page with the tables, figures and examples of the default run."""

from rap import paths

REPORT, RECORD = paths.RESULTS / "report.html", paths.RESULTS / "report.json"
FIGURES, LATEX = paths.RESULTS / "figures", paths.RESULTS / "latex"  # folders of NAME.svg and of TABLE.tex
