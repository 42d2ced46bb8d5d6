import os
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from sealed import damage

from rap.errors import UserError
from rap.provenance import Record
from rap.shards import Item, Shard, build, seal, untracked


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


def test_a_shard_that_is_up_to_date_is_left_alone(tmp_path):
    keys = {"a": "1", "bb": "1"}
    build(tmp_path / "s", keys, (3,), "uint8", compute([]))
    before = (tmp_path / "s.npy").stat()
    shard, computed = build(tmp_path / "s", keys, (3,), "uint8", compute([]))
    assert computed == 0 and list(shard.index.id) == ["a", "bb"]
    assert (tmp_path / "s.npy").stat().st_ino == before.st_ino
    build(tmp_path / "s", {"bb": "1", "a": "1"}, (3,), "uint8", compute([]))
    assert Shard.open(tmp_path / "s").array[:, 0].tolist() == [2, 1]


def sealed(stem, keys, failing=()):
    shard, _ = build(stem, keys, (3,), "uint8", compute([], failing))
    seal(shard, untracked)
    return Shard.read(stem)


def test_damage_of_a_row_is_found_when_it_is_read_and_mended_by_the_next_build(tmp_path):
    keys = {"a": "1", "bb": "1", "ccc": "1"}
    shard = sealed(tmp_path / "s", keys)
    assert shard.rows([2, 0]).tolist() == [[3] * 3, [1] * 3] and shard.damaged() == []
    damage(tmp_path / "s.npy", offset=-1 + shard.array.offset + 4)  # in the second row
    shard = Shard.read(tmp_path / "s")
    assert shard.rows([2, 0]).tolist() == [[3] * 3, [1] * 3] and shard.damaged() == ["bb"]
    with pytest.raises(UserError, match=r"s.npy: a row is damaged; `rap verify` names"):
        shard.rows([0, 1])
    asked = []
    mended, _ = build(tmp_path / "s", keys, (3,), "uint8", compute(asked))
    assert asked == ["bb"] and mended.damaged() == []


def test_the_array_of_another_shard_and_a_damaged_index_are_refused(tmp_path):
    keys = {"a": "1", "bb": "1"}
    sealed(tmp_path / "s", keys), sealed(tmp_path / "other", {"dddd": "1", "bb": "1"})
    shutil.copy(tmp_path / "other.npy", tmp_path / "s.npy")
    with pytest.raises(UserError, match="a row is damaged"):
        Shard.read(tmp_path / "s").rows([0])
    damage(tmp_path / "s.parquet")
    with pytest.raises(UserError, match=r"s.parquet: damaged"):
        Shard.read(tmp_path / "s")
    asked = []
    build(tmp_path / "s", keys, (3,), "uint8", compute(asked))
    assert asked == ["a", "bb"]


def test_a_damaged_header_of_the_array_is_damage_whatever_numpy_makes_of_it(tmp_path):
    """numpy parses it as Python."""
    sealed(tmp_path / "s", {"a": "1", "bb": "1"})
    whole = (tmp_path / "s.npy").read_bytes()
    for place in range(128):
        for byte in b"(\x00'9\n":
            (tmp_path / "s.npy").write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
            try:
                assert Shard.read(tmp_path / "s").array.shape == (2, 3)
            except UserError as error:
                assert "s.npy: damaged" in str(error)


def test_the_content_of_a_shard_does_not_depend_on_its_keys(tmp_path):
    """What reads a shard is not stale because the same rows were computed anew for another reason."""
    contents = set()
    for key in ("1", "2"):
        sealed(tmp_path / "s", {"a": key, "bb": key})
        contents.add(Record.read(tmp_path / "s.json").content)
    assert len(contents) == 1
    sealed(tmp_path / "s", {"a": "3", "bb": "2"}, failing={"a"})
    assert Record.read(tmp_path / "s.json").content not in contents


def test_a_failure_keeps_its_reason_in_the_index(tmp_path):
    shard, _ = build(tmp_path / "s", {"a": "1", "bb": "1"}, (3,), "uint8", compute([], {"a"}))
    assert list(shard.index.reason) == ["broken", ""] and list(shard.index.length) == [0, 2]


def test_an_interrupted_build_leaves_the_old_shard_whole(tmp_path):
    seal(build(tmp_path / "s", {"a": "1"}, (3,), "float32", compute([]))[0], untracked)

    def killed(ids):
        yield Item("bb", np.ones(3))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "s", {"bb": "1", "ccc": "1"}, (3,), "float32", killed)
    assert list(Shard.read(tmp_path / "s").index.id) == ["a"]
    asked = []
    build(tmp_path / "s", {"bb": "1", "ccc": "1"}, (3,), "float32", compute(asked))
    assert asked == ["ccc"]  # the row that was finished is kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.npy", "s.parquet"]


def test_an_empty_shard_is_a_shard_and_an_absent_one_is_named(tmp_path):
    shard, computed = build(tmp_path / "s", {}, (3,), "float32", compute([]))
    assert computed == 0 and shard.array.shape == (0, 3) and len(shard.index) == 0
    with pytest.raises(UserError, match="run the stage that writes it first"):
        Shard.read(tmp_path / "other")


@pytest.mark.parametrize("point", range(2, 6))  # the first removes an old journal, before anything is computed
def test_an_end_before_any_rename_or_removal_loses_no_row(tmp_path, monkeypatch, point):
    """At the end of a build, files get their names one after another; the next build computes nothing again."""
    keys, left = {"a": "1", "bb": "1"}, [0]
    build(tmp_path / "s", {"a": "0", "bb": "0"}, (3,), "float32", compute([]))
    seal(Shard.open(tmp_path / "s"), untracked)

    def stop(original):
        def operation(*arguments, **options):
            if str(arguments[0]).endswith(".tmp") and original is unlink:
                return original(*arguments, **options)  # of `atomic`, which cleans up: a killed process would not
            left[0] += 1
            if left[0] == point:
                raise KeyboardInterrupt
            return original(*arguments, **options)

        return operation

    unlink = Path.unlink
    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr("os.replace", stop(os.replace))
        patch.setattr(Path, "unlink", stop(unlink))
        asked = []
        build(tmp_path / "s", keys, (3,), "float32", compute(asked))
    assert left[0] == point and sorted(asked) == ["a", "bb"]
    again = []
    made, _ = build(tmp_path / "s", keys, (3,), "float32", compute(again))
    assert again == [] and made.array[:, 0].tolist() == [1, 2]
