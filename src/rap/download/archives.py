"""The archives of `download.archives`: each is fetched, unpacked into the folder of the videos, and deleted.

A marker file, written last, lists the contents of an archive. While all of these files exist, the archive is not
fetched again.
"""

from pathlib import Path
from threading import Event
from urllib.parse import unquote, urlsplit

from rap.download.http import Http
from rap.download.retry import FetchError
from rap.download.unpack import ArchiveError, unpack
from rap.errors import UserError
from rap.files import digest, digest_file, read_json, write_json
from rap.params import Archive, Download
from rap.progress import progress


def bring(settings: Download, folder: Path, work: Path) -> list[str]:
    """Fetch and unpack the archives whose contents are missing from `folder`; return a summary of each.

    Raises UserError at the first archive that fails.
    """
    return [
        _bring(archive, settings, folder, work) for archive in settings.archives if not _unpacked(archive, folder, work)
    ]


def _unpacked(archive: Archive, folder: Path, work: Path) -> bool:
    marker = _marker(archive, work)
    if not marker.exists():
        return False
    known = read_json(marker)
    return archive.sha256 in (None, known["sha256"]) and all(
        _has_size(folder / name, size) for name, size in known["files"].items()
    )


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _bring(archive: Archive, settings: Download, folder: Path, work: Path) -> str:
    name = unquote(urlsplit(archive.url).path).rpartition("/")[2] or "archive"
    file = work / f"{digest(archive.url)[:16]}.whole"  # kept until unpacked, in case of an interruption
    found = digest_file(file) if file.exists() else None
    try:
        if found is None or archive.sha256 not in (None, found):
            with progress(desc=name, unit="B", unit_scale=True) as bar:
                http = Http(settings, work, Event())
                http.fetch(archive.url, file, size=archive.size, sha256=archive.sha256, bar=bar)
            found = archive.sha256 or digest_file(file)
        limit = settings.max_gb * 1e9
        files = unpack(file, folder, work / "unpacking", name=name, strip=archive.strip, limit=limit)
    except FetchError as error:
        remedy = "correct the address" if error.dead else "run `rap download` again to resume"
        raise UserError(f"download.archives: {archive.url}: {error}; {remedy}") from None
    except ArchiveError as error:
        raise UserError(f"download.archives: {archive.url}: {error}; delete {file} to fetch it again") from None
    write_json(_marker(archive, work), {"url": archive.url, "sha256": found, "files": files})
    summary = f"fetched {name} ({file.stat().st_size / 1e6:.1f} MB, {len(files)} files)"
    file.unlink()
    return summary


def _marker(archive: Archive, work: Path) -> Path:
    return work / f"{digest([archive.url, archive.strip])[:16]}.unpacked.json"
