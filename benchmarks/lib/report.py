"""The output of a benchmark: its figures as JSON, its tables as Markdown, and the same tables in a page of docs/."""

import os
import platform
import re
import time
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from textwrap import fill

import torch
from tabulate import tabulate

from rap.files import write_json, write_text

ROOT = Path(__file__).resolve().parents[2]
OWN = ROOT / "benchmarks/results"
RESULTS = Path(os.environ.get("BENCHMARK_RESULTS", OWN)).resolve()
DOCS = ROOT / "docs"
WIDTH = 120  # characters in a line of prose
PACKAGES = ("torch", "numpy", "open_clip_torch", "pandas")


class Report:
    """The results of the benchmark `name`. Create it before the work, because it measures the load of the machine.

    They go to benchmarks/results/ and docs/, or to the folder of the environment variable BENCHMARK_RESULTS.
    """

    def __init__(self, name: str):
        self.name, self.machine = name, machine()

    def write(self, figures: dict, *parts: str) -> None:
        """Write NAME.json with `figures`, and NAME.md with `parts`, each a paragraph or a table in Markdown."""
        parts = (sentence(self.machine), *parts)
        text = "\n\n".join(part if part.startswith("|") else fill(part, WIDTH) for part in parts) + "\n"
        write_json(RESULTS / f"{self.name}.json", {"machine": self.machine, **figures})
        write_text(RESULTS / f"{self.name}.md", text)
        print(text)
        if RESULTS == OWN:
            page = page_of(self.name)
            write_text(page, quoted(page.read_text(encoding="utf-8"), self.name, text))


def table(rows: list[dict], layout: tuple[str, str] | None = None) -> str:
    """`rows` as a Markdown table. `layout`: its headings, "a | b, s", and the formats of its cells, "{a} | {b:.1f}".

    A cell is empty if its row lacks a field of the format. Without `layout` rows are shown as they are.
    """
    if layout:
        heads, cells = (line.split(" | ") for line in layout)
        rows = [{head: _cell(form, row) for head, form in zip(heads, cells, strict=True)} for row in rows]
    align = ["left", *["right"] * (len(rows[0]) - 1)]
    return tabulate(rows, headers="keys", tablefmt="pipe", disable_numparse=True, colalign=align)


def _cell(form: str, row: dict) -> str:
    try:
        return form.format(**row)
    except KeyError:
        return ""


def page_of(name: str) -> Path:
    """The page of docs/ that has the marks of a benchmark. Raises LookupError if none has."""
    for page in sorted(DOCS.glob("*.md")):
        if f"<!-- {name}: begin -->" in page.read_text(encoding="utf-8"):
            return page
    raise LookupError(f"no page of docs/ has the marks of {name}")


def quoted(page: str, name: str, text: str) -> str:
    """The page with `text` between the two marks of `name`."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    assert found, f"the page has no marks of {name}"
    return f"{before}{begin}{text}{end}{after}"


def machine() -> dict:
    """The machine, its present load, and the versions of the installed packages."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": found[1] if found else platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "busy_cores": round(_busy(), 2),
        "python": platform.python_version(),
        **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
        **{d.name: d.version for d in distributions() if d.name in PACKAGES},
    }


def sentence(about: dict) -> str:
    """The machine in words, and whether it was idle."""
    versions = ", ".join(f"{name} {about[name]}" for name in ("python", *PACKAGES) if name in about)
    busy = about["busy_cores"] > 0.2
    state = f"{about['busy_cores']} of them busy with other work, so times are too long" if busy else "otherwise idle"
    gpu = f"{about['gpu']}, " if "gpu" in about else ""
    return (
        f"{about['date']}, {gpu}{about['cores']} cores ({about['processor']}), "
        f"{about['memory_bytes'] / 2**30:.0f} GiB of memory, {state}; {versions}."
    )


def _busy(seconds: float = 1.0) -> float:
    """Cores that work at the moment. The load average of the system still counts the last minutes."""
    before, began = _worked(), time.perf_counter()
    time.sleep(seconds)
    return (_worked() - before) / (time.perf_counter() - began)


def _worked() -> float:
    """Seconds of work of all cores since the machine started."""
    user, nice, system, _idle, _wait, *rest = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + sum(rest[:3])) / os.sysconf("SC_CLK_TCK")
