"""The archives of `download.archives`: each fetched, unpacked into the folder of the videos, and then forgotten.

A marker, written last, says what an archive held. While all of that is there, the archive is not asked for again.
"""

from pathlib import Path
from threading import Event
from urllib.parse import unquote, urlsplit

from tqdm import tqdm

from rap.download.http import Http
from rap.download.retry import FetchError
from rap.download.unpack import ArchiveError, unpack
from rap.errors import UserError
from rap.files import digest, digest_file, read_json, write_json
from rap.params import Archive, Download


def bring(settings: Download, folder: Path, work: Path) -> list[str]:
    """Bring the archives that are not there; a summary of each that was. Raises UserError at the first that fails."""
    return [
        _bring(archive, settings, folder, work) for archive in settings.archives if not _there(archive, folder, work)
    ]


def _there(archive: Archive, folder: Path, work: Path) -> bool:
    marker = _marker(archive, work)
    if not marker.exists():
        return False
    known = read_json(marker)
    return archive.sha256 in (None, known["sha256"]) and all(
        _has(folder / name, n) for name, n in known["files"].items()
    )


def _has(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _bring(archive: Archive, settings: Download, folder: Path, work: Path) -> str:
    name = unquote(urlsplit(archive.url).path).rpartition("/")[2] or "archive"
    whole = work / f"{digest(archive.url)[:16]}.whole"  # stays if unpacking is interrupted
    found = digest_file(whole) if whole.exists() else None
    try:
        if found is None or archive.sha256 not in (None, found):
            with tqdm(desc=name, unit="B", unit_scale=True) as bar:
                http = Http(settings, work, Event())
                http.fetch(archive.url, whole, size=archive.size, sha256=archive.sha256, bar=bar)
            found = archive.sha256 or digest_file(whole)
        limit = settings.max_gb * 1e9
        files = unpack(whole, folder, work / "unpacking", name=name, strip=archive.strip, limit=limit)
    except FetchError as error:
        cure = "mend the address" if error.dead else "run `rap download` again to go on"
        raise UserError(f"download.archives: {archive.url}: {error}; {cure}") from None
    except ArchiveError as error:
        raise UserError(f"download.archives: {archive.url}: {error}; remove {whole} to fetch it again") from None
    write_json(_marker(archive, work), {"url": archive.url, "sha256": found, "files": files})
    summary = f"fetched {name} ({whole.stat().st_size / 1e6:.1f} MB, {len(files)} files)"
    whole.unlink()
    return summary


def _marker(archive: Archive, work: Path) -> Path:
    return work / f"{digest([archive.url, archive.strip])[:16]}.unpacked.json"
