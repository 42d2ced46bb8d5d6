"""What a benchmark leaves behind: its figures as JSON, its tables as Markdown, and these again in a document."""

import os
import platform
import re
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from textwrap import fill

import torch
from tabulate import tabulate

from rap.files import write_json, write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"
DOC = ROOT / "docs/scaling.md"
WIDTH = 120  # of a line of prose
PACKAGES = ("torch", "numpy", "open_clip_torch", "pandas")


def machine() -> dict:
    """On what the figures rest. To be taken before the work begins: what is busy then is so with other work."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": memory,
        "busy_cores": round(_busy(), 2),
        "python": platform.python_version(),
        **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
        **{name: found for name in PACKAGES if (found := _version(name))},
    }


def _busy(seconds: float = 1.0) -> float:
    """How many cores work, over a moment; the load that the system states still tells of the last minutes."""
    before, began = _worked(), time.perf_counter()
    time.sleep(seconds)
    return (_worked() - before) / (time.perf_counter() - began)


def _worked() -> float:
    """Seconds that all cores together have not been idle, since the machine started."""
    user, nice, system, _idle, _wait, *rest = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + sum(rest[:3])) / os.sysconf("SC_CLK_TCK")


def _version(package: str) -> str | None:
    """None if it is not installed: not every benchmark needs every package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return found[1] if found else platform.machine()


def sentence(about: dict) -> str:
    """The machine in words, and whether it had other work to do."""
    versions = ", ".join(f"{name} {about[name]}" for name in ("python", *PACKAGES) if name in about)
    busy = about["busy_cores"] > 0.2
    state = f"{about['busy_cores']} of them busy with other work: seconds are too high" if busy else "otherwise idle"
    gpu = f"{about['gpu']}, " if "gpu" in about else ""
    return (
        f"{about['date']}, {gpu}{about['cores']} cores ({about['processor']}), "
        f"{about['memory_bytes'] / 2**30:.0f} GiB of memory, {state}; {versions}."
    )


def table(rows: list[dict]) -> str:
    align = ["left", *["right"] * (len(rows[0]) - 1)]
    return tabulate(rows, headers="keys", tablefmt="pipe", disable_numparse=True, colalign=align)


def write(folder: Path, name: str, figures: dict, *parts: str, doc: Path = DOC) -> None:
    """NAME.json and NAME.md in `folder`; and, of the project's own results, the latter between its marks in `doc`."""
    text = "\n\n".join(part if part.startswith("|") else fill(part, WIDTH) for part in parts) + "\n"
    write_json(folder / f"{name}.json", figures)
    write_text(folder / f"{name}.md", text)
    print(text)
    if folder.resolve() == RESULTS:
        write_text(doc, quoted(doc.read_text(encoding="utf-8"), name, text))


def quoted(doc: str, name: str, text: str) -> str:
    """The document with `text` between its two marks for `name`."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, _, rest = doc.partition(begin)
    _, found, after = rest.partition(end)
    assert found, f"no marks for {name} in the document"
    return f"{before}{begin}{text}{end}{after}"
