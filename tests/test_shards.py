import os

import numpy as np
import pytest

from rap.errors import UserError
from rap.shards import Item, Shard, build


def compute(asked, failing=()):
    """Arrays that tell their id and its length; `asked` notes what was computed."""

    def work(ids):
        asked.extend(ids)
        for id in reversed(ids):
            yield Item(id, reason="broken") if id in failing else Item(id, np.full(3, len(id)), length=2)

    return work


def test_rows_stand_in_the_order_of_the_keys_whatever_order_they_are_made_in(tmp_path):
    keys = {"a": "1", "bb": "1", "ccc": "1"}
    shard, computed = build(tmp_path / "s", keys, (3,), "float32", compute([]))
    assert computed == 3 and list(shard.index.id) == ["a", "bb", "ccc"] and shard.array.dtype == np.float32
    assert shard.array.tolist() == [[1] * 3, [2] * 3, [3] * 3] and list(shard.index.length) == [2, 2, 2]


def test_only_what_changed_or_failed_is_made_again_and_the_bytes_are_those_of_a_fresh_shard(tmp_path):
    build(tmp_path / "s", {"a": "1", "bb": "1", "ccc": "1", "dddd": "1"}, (3,), "float32", compute([], {"bb"}))
    asked, keys = [], {"dddd": "1", "bb": "1", "a": "2", "eeeee": "1"}
    build(tmp_path / "s", keys, (3,), "float32", compute(asked))
    assert sorted(asked) == ["a", "bb", "eeeee"]
    build(tmp_path / "fresh", keys, (3,), "float32", compute([]))
    for end in ("npy", "parquet"):
        assert (tmp_path / f"s.{end}").read_bytes() == (tmp_path / f"fresh.{end}").read_bytes()


@pytest.mark.parametrize(("shape", "dtype"), [((4,), "float32"), ((3,), "float16")])
def test_another_shape_or_type_takes_nothing_over(tmp_path, shape, dtype):
    build(tmp_path / "s", {"a": "1"}, (3,), "float32", compute([]))
    asked = []
    build(
        tmp_path / "s", {"a": "1"}, shape, dtype, lambda ids: [asked.append(i) or Item(i, np.ones(shape)) for i in ids]
    )
    assert asked == ["a"]


def test_a_shard_that_is_up_to_date_is_left_alone_but_dated_anew(tmp_path):
    keys = {"a": "1", "bb": "1"}
    build(tmp_path / "s", keys, (3,), "uint8", compute([]))
    inode = (tmp_path / "s.npy").stat().st_ino
    os.utime(tmp_path / "s.npy", (0, 0))
    shard, computed = build(tmp_path / "s", keys, (3,), "uint8", compute([]))
    assert computed == 0 and list(shard.index.id) == ["a", "bb"]
    assert (tmp_path / "s.npy").stat().st_ino == inode and (tmp_path / "s.npy").stat().st_mtime > 0
    build(tmp_path / "s", {"bb": "1", "a": "1"}, (3,), "uint8", compute([]))
    assert Shard.read(tmp_path / "s").array[:, 0].tolist() == [2, 1]


def test_a_failure_keeps_its_reason_in_the_index(tmp_path):
    shard, _ = build(tmp_path / "s", {"a": "1", "bb": "1"}, (3,), "uint8", compute([], {"a"}))
    assert list(shard.index.reason) == ["broken", ""] and list(shard.index.length) == [0, 2]


def test_an_interrupted_build_leaves_the_old_shard_whole(tmp_path):
    build(tmp_path / "s", {"a": "1"}, (3,), "float32", compute([]))

    def killed(ids):
        yield Item("bb", np.ones(3))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "s", {"bb": "1", "ccc": "1"}, (3,), "float32", killed)
    assert list(Shard.read(tmp_path / "s").index.id) == ["a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.npy", "s.parquet"]


def test_an_empty_shard_is_a_shard_and_an_absent_one_is_named(tmp_path):
    shard, computed = build(tmp_path / "s", {}, (3,), "float32", compute([]))
    assert computed == 0 and shard.array.shape == (0, 3) and len(shard.index) == 0
    with pytest.raises(UserError, match="run the stage that makes it"):
        Shard.read(tmp_path / "other")
