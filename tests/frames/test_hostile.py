"""Files that look like videos and point elsewhere: nothing else is opened, on this machine or another."""

import socket
import struct
from pathlib import Path

import numpy as np
import pytest
from conftest import film
from shipped import shipped

from rap.download.shots import cuts
from rap.frames import ffmpeg
from rap.frames.decode import Recipe, _command, decode
from rap.frames.ffmpeg import VideoError
from rap.frames.probe import probe
from rap.frames.samplers import Segments

RECIPE = Recipe(shipped("frames", count=2), 64, "bicubic")
ADDRESS, SECRET = "http://127.0.0.1:{port}/x.mp4", "secret.mp4"  # beside the script
SCRIPTS = {  # formats of ffmpeg that name other files; {there} is one of the two above
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{there}\n#EXT-X-ENDLIST\n",
    "hls key": '#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXT-X-KEY:METHOD=AES-128,URI="{there}"\n#EXTINF:9,\n{there}\n',
    "concat": "ffconcat version 1.0\nfile '{there}'\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT9S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="0" '
    'bandwidth="9"><BaseURL>{there}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\na=control:{there}\n"
    "m=video {port} RTP/AVP 96\n",
    "asx": '<asx version="3.0"><entry><ref href="{there}"/></entry></asx>',
    "ram": "{there}\n",
    "svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="{there}" width="9" height="9"/></svg>',
}
ENDINGS = ("mp4", "avi", "mkv", "m3u8")
NAMES = ("-version.mp4", "concat:a.mp4", "subfile,,start,0,end,99,,:secret.mp4", "pipe:0", "%03d.mp4", "a'b$(id);.mp4")


@pytest.fixture
def listener():
    """A server that must hear nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.01)
        yield server


@pytest.fixture
def secret(tmp_path):
    return film(tmp_path / "secret.mp4", "color=red:s=64x64:r=5:d=2", "-c:v", "libx264")


def refuse(path: Path) -> None:
    """Every road by which a video is opened ends in a line."""
    decoding = [lambda: ffmpeg.run(_command(path, "h264", RECIPE, [Segments(0.1, 0.5, 2)], 0.0))]
    for opened in (lambda: probe(path), lambda: decode(path, RECIPE), lambda: cuts(path, 20), *decoding):
        with pytest.raises(VideoError) as refused:
            opened()
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("there", [ADDRESS, SECRET])
@pytest.mark.parametrize("kind", SCRIPTS)
def test_a_script_under_the_name_of_a_video_reaches_nobody(tmp_path, listener, secret, kind, there):
    port = listener.getsockname()[1]
    for ending in ENDINGS:
        path = tmp_path / f"script.{ending}"
        path.write_text(SCRIPTS[kind].replace("{there}", there).format(port=port))
        refuse(path)
    with pytest.raises(TimeoutError):
        listener.accept()


def test_a_film_whose_pictures_lie_in_another_file_is_refused(tmp_path, secret):
    """QuickTime's data reference: an alias with an absolute path in place of "in this file"."""
    path = tmp_path / "alias.mov"
    path.write_bytes(elsewhere(secret.read_bytes(), secret))
    refuse(path)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_only_a_name(tmp_path, secret, name):
    """The film under an odd name is decoded, not what ffmpeg could read in the name."""
    own = film(tmp_path / "own.mp4", "color=blue:s=64x64:r=5:d=2", "-c:v", "libx264").rename(tmp_path / name)
    for decoder in ("ffmpeg", "sparse"):
        found = decode(own, Recipe(shipped("frames", count=2, decoder=decoder), 64, "bicubic"))
        assert (found[..., 2] > 200).all() and (found[..., 0] < 50).all()
    assert cuts(own, 20) == []


def elsewhere(data: bytes, target: Path) -> bytes:
    """An MP4 file whose `dref` box is an alias of `target`, and whose own pictures are noise."""
    at = data.index(b"mdat") + 4
    size = struct.unpack(">I", data[at - 8 : at - 4])[0] - 8
    noise = np.random.default_rng(0).bytes(size)
    name = str(target).encode() + b"\0" * (len(str(target)) % 2)
    alias = bytes(10) + bytes([1]) + b"x".ljust(27, b"\0") + bytes(12) + bytes([1]) + b"s".ljust(63, b"\0")
    alias += bytes(16) + struct.pack(">HH", 0, 0) + bytes(16)
    alias += struct.pack(">HH", 2, len(name)) + name + struct.pack(">HH", 0xFFFF, 0)
    entry = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    dref = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    return replaced(data[:at] + noise + data[at + size :], (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"), dref)


def replaced(data: bytes, path: tuple[bytes, ...], box: bytes) -> bytes:
    """The boxes of `data` with the one at `path` replaced, and the sizes of those around it corrected."""
    out, at = b"", 0
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        inside = data[at + 8 : at + size]
        if kind == path[0]:
            whole = box if len(path) == 1 else b""
            inner = whole or replaced(inside, path[1:], box)
            out += whole or struct.pack(">I4s", 8 + len(inner), kind) + inner
        else:
            out += data[at : at + size]
        at += size
    return out
