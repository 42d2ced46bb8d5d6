"""Every command that the README shows is run by a test, or by CI."""

import re
from pathlib import Path

from clones import ROOT

DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "tests/README.md",
    ROOT / "config/README.md",
    *(ROOT / "docs").glob("*.md"),
]
RUN_BY = {  # the file that runs the command, and what it says there
    "make demo": ("tests/workflow/test_engines.py", '"make", "demo"'),
    "make test": (".ci/run", "make test"),
    "source .venv/bin/activate": ("Makefile", "$(VENV)/bin:$(PATH)"),
    "dvc repro": ("tests/workflow/test_engines.py", '"dvc", "repro"'),
    "snakemake --cores 8 results/table1.csv": ("tests/workflow/test_engines.py", '"results/table1.csv"'),
    "make sync": ("tests/workflow/test_engines.py", '"make", "sync"'),
    "dvc metrics show": ("tests/workflow/test_engines.py", '"dvc", "metrics", "show"'),
    "mlflow ui --backend-store-uri sqlite:///mlflow.db --workers 1": (
        "tests/helpers/mlflow_ui.py",
        '"mlflow", "ui"',
    ),
    "rap dataset use folder": ("tests/workflow/test_own_videos.py", '"rap", "dataset", "use", "folder"'),
    "rap dataset init my-videos": ("tests/workflow/test_own_videos.py", '"rap", "dataset", "init", "my-videos"'),
    "rap index": ("tests/workflow/test_own_videos.py", '"rap", "index"'),
    'rap search "a dog jumps" --picture found.png': (
        "tests/workflow/test_own_videos.py",
        '"rap", "search", "a dog jumps", "--picture", "found.png"',
    ),
    "rap serve": ("tests/search/test_serve.py", '"rap", "serve"'),
    "rap adapters": ("tests/workflow/test_engines.py", '"rap", "adapters"'),
}


def commands(document: Path) -> set[str]:
    blocks = re.findall(r"^```bash\n(.*?)^```", document.read_text(), flags=re.M | re.S)
    return {line for block in blocks for line in block.splitlines()}


def test_every_command_of_the_readme_is_run():
    assert set().union(*map(commands, DOCUMENTS)) == RUN_BY.keys()
    for command, (file, words) in RUN_BY.items():
        assert words in (ROOT / file).read_text(), f"{command}: not in {file}"


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as forges make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", document.read_text(), flags=re.M | re.S), flags=re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_file_and_heading_that_the_documents_link_to_is_there():
    for document in DOCUMENTS:
        for file, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", document.read_text()):
            target = document.parent / file if file else document
            assert target.exists() or file.startswith("results/"), f"{document.name}: {file}"
            assert not anchor or anchor in anchors(target), f"{document.name}: {file}#{anchor}"
