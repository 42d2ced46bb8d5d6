"""Every command that the README shows is run by a test, or by CI."""

import re
from pathlib import Path

from clones import ROOT

RUN_BY = {  # the file that runs the command, and what it says there
    "make demo": ("tests/workflow/test_engines.py", '"make", "demo"'),
    "make test": (".ci/run", "make test"),
    "source .venv/bin/activate": ("Makefile", "$(VENV)/bin:$(PATH)"),
    "dvc repro": ("tests/workflow/test_engines.py", '"dvc", "repro"'),
    "snakemake --cores 8 results/table1.csv": ("tests/workflow/test_engines.py", '"results/table1.csv"'),
    "make sync": ("tests/workflow/test_engines.py", '"make", "sync"'),
    "dvc metrics show": ("tests/workflow/test_engines.py", '"dvc", "metrics", "show"'),
    "mlflow ui --backend-store-uri sqlite:///mlflow.db --workers 1": (
        "tests/workflow/test_engines.py",
        '"mlflow", "ui"',
    ),
    "rap dataset use folder": ("tests/workflow/test_own_videos.py", '"rap", "dataset", "use", "folder"'),
    "rap dataset init my-videos": ("tests/workflow/test_own_videos.py", '"rap", "dataset", "init", "my-videos"'),
    "dvc repro features": ("tests/workflow/test_own_videos.py", '"dvc", "repro", "features"'),
    'rap search "a dog jumps" --variant zero_shot --picture found.png': (
        "tests/workflow/test_own_videos.py",
        '"rap", "search", "a dog jumps", "--variant", "zero_shot", "--picture", "found.png"',
    ),
    "rap adapters": ("tests/workflow/test_engines.py", '"rap", "adapters"'),
}


def commands(document: Path) -> set[str]:
    blocks = re.findall(r"^```bash\n(.*?)^```", document.read_text(), flags=re.M | re.S)
    return {line for block in blocks for line in block.splitlines()}


def test_every_command_of_the_readme_is_run():
    assert commands(ROOT / "README.md") == RUN_BY.keys()
    for document in (ROOT / "docs").glob("*.md"):
        assert commands(document) <= RUN_BY.keys(), document.name
    for command, (file, words) in RUN_BY.items():
        assert words in (ROOT / file).read_text(), f"{command}: not in {file}"


def test_every_file_that_the_documents_link_to_is_there():
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (document.parent / link).exists() or link.startswith("results/"), f"{document.name}: {link}"
