"""Records for results that a test made by hand, as if the present code and parameters had made them."""

from pathlib import Path

from rap import paths
from rap.files import digest, digest_file
from rap.jobs import Job
from rap.params import Params


def backbone(settings: Params) -> None:
    """Seal the backbone's folder, whatever files it has."""
    folder = paths.backbone(settings.backbone.name)
    job = Job(settings, "backbone", {})
    job.reads_external()
    files = {file.name: digest_file(file) for file in sorted(folder.iterdir()) if file.name != "backbone.json"}
    job.result(digest(files), files).write(folder / "backbone.json")


def damage(file: str | Path, offset: int = -1, count: int = 1) -> None:
    """Flip bytes of a file; by default one in its middle."""
    content = bytearray(Path(file).read_bytes())
    start = len(content) // 2 if offset < 0 else offset
    for place in range(start, start + count):
        content[place] ^= 0xFF
    Path(file).write_bytes(content)
