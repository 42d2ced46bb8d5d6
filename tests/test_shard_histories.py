"""Any history of builds, kills and damage ends with the bytes of a shard that was built once."""

import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rap.shards import Item, Shard, build, seal, untracked

SHAPE = (3,)


def row(id: str, key: str) -> Item:
    """What a stage would compute: it depends on the id and the key alone. One of them always fails."""
    if id == "e":
        return Item(id, reason="broken")
    return Item(id, np.full(SHAPE, ord(id) + 7 * int(key), np.float32), length=1 + int(key))


def work(keys: dict[str, str], killed_after: int):
    def compute(ids):
        for number, id in enumerate(ids):
            if number == killed_after:
                raise KeyboardInterrupt
            yield row(id, keys[id])

    return compute


def make(stem: Path, keys: dict[str, str], killed_after: int = -1) -> None:
    shard, _ = build(stem, keys, SHAPE, "float32", work(keys, killed_after))
    seal(shard, untracked)


def damage(folder: Path, file: int, place: int, flip: int) -> None:
    """Change a byte of a file. (Nothing guards the index of a shard whose record a killed build has removed.)"""
    files = sorted(file for file in folder.iterdir() if file.stat().st_size)
    if not (folder / "s.json").exists():
        files = [file for file in files if file.name.endswith(".part")]
    if files:
        chosen = files[file % len(files)]
        content = bytearray(chosen.read_bytes())
        content[place % len(content)] ^= flip
        chosen.write_bytes(content)


keys = st.dictionaries(st.sampled_from("abcde"), st.sampled_from("012"))
hurt = st.tuples(st.integers(0, 9), st.integers(0, 10_000), st.integers(1, 255))
steps = st.lists(st.tuples(keys, st.integers(-1, 4), st.none() | hurt), max_size=5)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(history=steps, last=keys)
def test_any_history_ends_with_the_bytes_of_a_fresh_shard(history, last):
    with tempfile.TemporaryDirectory() as folder:
        used, fresh = Path(folder, "used"), Path(folder, "fresh")
        used.mkdir()
        for wanted, killed_after, hurt in history:
            with suppress(KeyboardInterrupt):
                make(used / "s", wanted, killed_after)
            if hurt:
                damage(used, *hurt)
        for stem in (used / "s", fresh / "s"):
            make(stem, last)
        assert Shard.read(used / "s").damaged() == []
        for end in ("npy", "parquet", "json"):
            assert (used / f"s.{end}").read_bytes() == (fresh / f"s.{end}").read_bytes(), end
