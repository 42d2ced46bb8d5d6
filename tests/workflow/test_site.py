"""The documentation site is built without a warning, and needs no other host."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from clones import ROOT


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_another_host(tmp_path):
    """In an environment of its own: the tools of the site are not in the lock."""
    uv, place, site = Path(sys.executable).with_name("uv"), tmp_path / "tools", tmp_path / "site"
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["docs"]
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, place], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", place / "bin/python", *tools], check=True)
    build = [place / "bin/mkdocs", "build", "--strict", "--quiet", "--site-dir", site]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|link)[^>]+(?:src|href)=[\"']?(https?://[^\"' >]+)", page.read_text())
        assert not loaded, (page.name, loaded)
    assert "Raises UserError" in (site / "reference/index.html").read_text()
