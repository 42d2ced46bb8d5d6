"""Good archives of any supported kind are unpacked; malicious ones write nothing outside the folder."""

import gzip
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from rap.download.unpack import ArchiveError, unpack

FILES = {"videos/a.mp4": b"a" * 1000, "videos/deep/ü b.mp4": b"b" * 70_000, "list.csv": b"path\n"}


def zipped(path: Path, files: dict, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return path


def tarred(path: Path, files: dict, mode: str = "w:gz", *special: tarfile.TarInfo) -> Path:
    with tarfile.open(path, mode) as archive:
        for info in special:
            archive.addfile(info)
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return path


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


@pytest.fixture
def opened(tmp_path):
    """Unpack an archive into a folder beside others; returns the contents of the folder."""
    folder = tmp_path / "outer" / "videos"
    folder.mkdir(parents=True)

    def run(archive: Path, strip: int = 0, limit: float = 1e9) -> dict[str, bytes]:
        try:
            listed = unpack(archive, folder, tmp_path / "scratch", name=archive.name, strip=strip, limit=limit)
            assert {name: (folder / name).stat().st_size for name in listed} == listed
        finally:
            assert not (tmp_path / "escaped").exists() and list(folder.parent.iterdir()) == [folder]
            assert not any(path.is_symlink() for path in folder.rglob("*"))
        return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    run.folder = folder
    return run


@pytest.mark.parametrize("kind", ["zip", "stored.zip", "tar", "tar.gz", "tar.xz", "tar.bz2", "no-suffix"])
def test_good_archives_are_unpacked(tmp_path, opened, kind):
    path = tmp_path / f"good.{kind}"
    if kind.endswith("zip"):
        zipped(path, FILES, zipfile.ZIP_STORED if "stored" in kind else zipfile.ZIP_DEFLATED)
    else:
        tarred(path, FILES, "w:" + (kind.partition(".")[2] or "gz").removeprefix("tar").lstrip("."))
    assert opened(path) == FILES


def test_strip_removes_leading_folders(tmp_path, opened):
    assert opened(zipped(tmp_path / "good.zip", FILES), strip=1) == {
        "a.mp4": FILES["videos/a.mp4"],
        "deep/ü b.mp4": FILES["videos/deep/ü b.mp4"],
    }


def test_a_file_that_is_not_an_archive_is_kept_under_its_name(tmp_path, opened, clips):
    (tmp_path / "one.mp4").write_bytes((clips / "one.mp4").read_bytes())
    assert list(opened(tmp_path / "one.mp4")) == ["one.mp4"]


@pytest.mark.parametrize("name", ["../escaped", "videos/../../../escaped", "/tmp/escaped", "..\\..\\escaped", "a\nb"])
@pytest.mark.parametrize("strip", [0, 1])
@pytest.mark.parametrize("make", [zipped, tarred])
def test_no_member_lands_outside(tmp_path, opened, make, name, strip):
    with pytest.raises(ArchiveError, match="leads out of the folder"):
        opened(make(tmp_path / "evil", {"good.mp4": b"x", name: b"evil"}), strip)


def test_a_link_in_the_users_folder_is_not_followed(tmp_path, opened):
    (tmp_path / "elsewhere").mkdir()
    (opened.folder / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises((ArchiveError, AssertionError), match="leads out"):
        unpack(zipped(tmp_path / "x.zip", {"sub/a": b"x"}), opened.folder, tmp_path / "s", name="x", strip=0, limit=1e9)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_links_devices_and_hidden_files_are_left_out(tmp_path, opened, capsys):
    fifo, device = tarfile.TarInfo("pipe"), tarfile.TarInfo("device")
    fifo.type, device.type = tarfile.FIFOTYPE, tarfile.CHRTYPE
    special = [link("out", "/etc"), link("hard", "a", tarfile.LNKTYPE), link("in", "a"), fifo, device]
    files = {"out/passwd": b"x", ".git/config": b"x", "__MACOSX/a": b"x", "a": b"x"}
    assert opened(tarred(tmp_path / "x.tar", files, "w", *special)) == {"out/passwd": b"x", "a": b"x"}
    assert "7 members left out" in capsys.readouterr().err
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
        archive.writestr("b", b"x")
    assert opened(tmp_path / "x.zip").keys() == {"out/passwd", "a", "b"}


@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_bomb_is_stopped(tmp_path, opened, make):
    bomb = make(tmp_path / "bomb", {"zeros": bytes(20_000_000)})
    assert bomb.stat().st_size < 50_000
    with pytest.raises(ArchiveError, match="expands to more than 100 times its size"):
        opened(bomb)
    assert list(opened.folder.iterdir()) == []


def test_many_members_count_together(tmp_path, opened):
    many = zipped(tmp_path / "many.zip", {f"{n}": os.urandom(1000) for n in range(10)})
    with pytest.raises(ArchiveError, match="expands to more"):
        opened(many, limit=9_999)
    assert len(opened(many, limit=10_000)) == 10


@pytest.mark.parametrize("make", [zipped, tarred])
def test_damage_is_one_line_and_leaves_no_partial_file(tmp_path, opened, make):
    whole = make(tmp_path / "whole.zip", {"a": b"a", "b": os.urandom(300_000)}).read_bytes()
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArchiveError, match=r"damaged|not a readable archive") as caught:
        opened(cut)
    assert "\n" not in str(caught.value)
    assert not (opened.folder / "b").exists()


def test_wrong_bytes_within_an_archive_are_damage(tmp_path, opened):
    path = zipped(tmp_path / "x.zip", {"a": b"a" * 1000}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"aaaa", b"aaba", 1))
    with pytest.raises(ArchiveError, match=r"damaged.*CRC"):
        opened(path)


@pytest.mark.parametrize("start", [b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"\x28\xb5\x2f\xfd"])
def test_unsupported_archives_are_named(tmp_path, opened, start):
    (tmp_path / "x.zip").write_bytes(start + bytes(1000))
    with pytest.raises(ArchiveError, match="archives are not supported; unpack it yourself"):
        opened(tmp_path / "x.zip")


@pytest.mark.parametrize(
    "body",
    [
        b"<html>please log in</html>",
        gzip.compress(bytes(9), mtime=0)[:10] + b"\xff" * 99,
        gzip.compress(b"", mtime=0)[:9],
    ],
    ids=["a page", "a body of other bytes", "a header only"],
)
def test_other_files_with_an_archives_name_are_rejected(tmp_path, opened, body):
    (tmp_path / "x.tar.gz").write_bytes(body)
    with pytest.raises(ArchiveError, match=r"not a readable archive|damaged"):
        opened(tmp_path / "x.tar.gz")


def test_unpacking_again_writes_only_missing_files(tmp_path, opened):
    path = zipped(tmp_path / "good.zip", FILES)
    opened(path)
    kept = (opened.folder / "list.csv").stat()
    (opened.folder / "videos/a.mp4").write_bytes(b"cut")
    assert opened(path) == FILES
    assert (opened.folder / "list.csv").stat().st_ino == kept.st_ino
