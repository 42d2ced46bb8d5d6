"""Additions of the documentation site to docs/: links to other files of the repository, and the API reference."""

import re

from mkdocs.structure.files import File, Files

MODULES = {  # the API for users of the package and for authors of methods
    "Search": "rap.search.library",
    "Trained adapters": "rap.retrieval.pretrained",
    "Metrics": "rap.retrieval.metrics",
    "Intervals and tests": "rap.report.statistics",
    "Adapters": "rap.adapters.base",
    "The registry of adapters": "rap.adapters.registry",
    "Towers": "rap.clip.towers",
    "Parameters": "rap.params.params",
    "Stages": "rap.stages",
    "Jobs": "rap.jobs",
    "Provenance": "rap.provenance",
    "Shards": "rap.shards",
}


def on_files(files: Files, config) -> Files:
    """Add the page of the API, generated from docstrings."""
    parts = [f"## {title}\n\n::: {module}\n" for title, module in MODULES.items()]
    files.append(File.generated(config, "reference.md", content="\n".join(["# Reference\n", *parts])))
    return files


def on_page_markdown(markdown: str, config, **_) -> str:
    """Point links out of docs/ to the repository, if mkdocs.yml names one (repo_url); else keep only their text."""
    link = rf"[\1]({config.repo_url}/blob/main/\2)" if config.repo_url else r"\1 (`\2`)"
    return re.sub(r"\[([^\]]+)\]\(\.\./([^)]+)\)", link, markdown)
