import os
import shutil
from pathlib import Path

import do
import pytest
from conftest import H264, film, put

from rap.data.manifest import Manifest
from rap.errors import UserError
from rap.files import digest_file
from rap.report import dataset as stats


def listed(*names: str) -> None:
    rows = [f'"{name}",a caption,train\n' for name in names]
    Path("list.csv").write_text("path,caption,split\n" + "".join(rows))


def test_good_videos_get_their_digest_and_bad_ones_a_reason(project, clips, capsys):
    put(clips, "steady.mp4", "steady.webm", "stream.ts")
    videos = Path("videos")
    bad = {
        "absent.mp4": "cannot be opened: No such file or directory",
        "empty.mp4": "empty file",
        "text.mp4": "not a readable video",
        "playlist.mp4": "not a readable video",
        "concat.mp4": "not a readable video",
        "sound.mp4": "no video stream",
        "cut.mp4": "cut short",
        "cut.webm": "cut short",
        "noindex.mp4": "not a readable video",
        "folder.mp4": "not a regular file",
        "pipe.mp4": "not a regular file",
    }
    (videos / "empty.mp4").touch()
    (videos / "text.mp4").write_text("not a video")
    (videos / "playlist.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{clips / 'stream.ts'}\n")
    (videos / "concat.mp4").write_text(f"ffconcat version 1.0\nfile '{clips / 'steady.mp4'}'\n")
    film(videos / "sound.mp4", "sine=d=1")
    for name in ("cut.mp4", "cut.webm"):
        whole = (clips / f"steady{Path(name).suffix}").read_bytes()
        (videos / name).write_bytes(whole[: len(whole) * 6 // 10])
    (videos / "noindex.mp4").write_bytes((clips / "picture.mp4").read_bytes()[:30_000])
    (videos / "folder.mp4").mkdir()
    os.mkfifo(videos / "pipe.mp4")
    listed("steady.mp4", "steady.webm", "stream.ts", *bad)

    summary = do.download(project(dataset={"max_failed": 0.9}))
    assert "14 videos (train 14, val 0, test 0), 14 captions, 11 failed" in summary
    table = Manifest.read("data/folder/manifest").videos.set_index("path")
    assert list(table.status) == ["ok"] * 3 + ["failed"] * len(bad)
    for name, reason in bad.items():
        assert reason in table.reason[name] and "\n" not in table.reason[name], (name, table.reason[name])
        assert table.digest[name] == ""
    assert table.digest["steady.webm"] == digest_file(clips / "steady.webm")
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert len(said) == 6 and said[-1].startswith("failed: 6 more; `rap dataset stats`")


def test_special_characters_in_names_have_no_effect(project, clips):
    names = ["-dash.mp4", "ünï \"quoted\" 'too' %d;$(x).mp4", "http:x.mp4", "a,b|c.mp4", "sub/deep.mp4"]
    (Path("videos") / "sub").mkdir()
    for name in names:
        shutil.copy(clips / "one.mp4", Path("videos") / name)
    Path("list.csv").write_text(
        "path,caption,split\n" + "".join('"' + name.replace('"', '""') + '",x,test\n' for name in names)
    )
    do.download(project())
    assert list(Manifest.read("data/folder/manifest").videos.status) == ["ok"] * len(names)


def test_too_many_failures_leave_no_manifest_and_delete_an_older_one(project, clips):
    put(clips, "one.mp4", "one.webm")
    listed("one.mp4", "one.webm")
    do.download(project())
    Path("videos/one.webm").unlink()
    with pytest.raises(UserError, match=r"1 of 2 videos failed.*max_failed.*one\.webm: cannot be opened"):
        do.download(project())
    with pytest.raises(UserError, match=r"manifest\.json: not there; run `rap download` first"):
        Manifest.read("data/folder/manifest")
    assert "one.webm" in stats.run(project())  # which needs no manifest to say what is missing
    do.download(project(dataset={"max_failed": 0.5}))
    assert not Path("data/folder/refused/manifest.json").exists()
    assert list(Manifest.read("data/folder/manifest").videos.status) == ["ok", "failed"]


def test_a_refusal_names_the_folder_and_files_that_match_nothing(project, clips):
    put(clips, "one.mp4", "one.webm", "steady.mp4")
    listed("one.mp4", "two.mp4")
    with pytest.raises(UserError) as error:
        do.download(project())
    assert "searched in videos, where 2 files match no video, such as one.webm, steady.mp4;" in str(error.value)
    assert "set dataset.max_failed to 1.0" in str(error.value) and "\n" not in str(error.value)
    assert "note: too many videos failed for a manifest" in stats.run(project())


def test_the_same_folder_gives_the_same_bytes_and_a_changed_video_is_named(project, clips, capsys):
    put(clips, "one.mp4", "one.webm")
    listed("one.mp4", "one.webm")
    videos = Path("data/folder/manifest/videos.parquet")
    do.download(project())
    first, digests = videos.read_bytes(), Manifest.read(videos.parent).videos.digest
    do.download(project(runtime={"workers": 1}))
    assert videos.read_bytes() == first and "changed" not in capsys.readouterr().err
    film(Path("videos/one.mp4"), "testsrc=s=64x64:d=1", *H264)
    assert "; 1 files have other bytes than at the last download" in do.download(project())
    assert capsys.readouterr().err.startswith("changed: one.mp4: other bytes than at the last download; if you did not")
    assert (Manifest.read(videos.parent).videos.digest != digests).tolist() == [True, False]
