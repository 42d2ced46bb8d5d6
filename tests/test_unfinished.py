"""A shard that is killed while it is made keeps its finished rows and ends with the same bytes; a full disk is told."""

import os
import re
import signal
import subprocess
import sys
import time
from errno import ENOSPC
from pathlib import Path

import numpy as np
import pytest

from rap.errors import UserError
from rap.shards import Item, build
from rap.unfinished import Unfinished

KEYS = {f"v{number}": str(number) for number in range(40)}
SHAPE = (8, 5)
SLOW = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_unfinished as t
t.build(Path(sys.argv[1]), t.KEYS, t.SHAPE, "float32", t.rows([], pause=0.02), together=4)
"""


def rows(asked, pause=0.0):
    """Computes rows that tell their number; one fails."""

    def compute(ids):
        asked.extend(ids)
        for id in ids:
            time.sleep(pause)
            number = int(KEYS[id])
            yield Item(id, reason="broken") if number == 7 else Item(id, np.full(SHAPE, number), 3)

    return compute


def files(stem):
    return [stem.with_name(f"{stem.name}.{end}").read_bytes() for end in ("npy", "parquet")]


def test_a_killed_build_repeats_only_the_rows_in_flight_and_ends_with_the_same_bytes(tmp_path):
    build(tmp_path / "whole", KEYS, SHAPE, "float32", rows([]))
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path / "s"), str(Path(__file__).parent)])
    journal, deadline = tmp_path / ".s.rows.part", time.monotonic() + 60
    while not journal.exists() or journal.read_text().count("\n") < 15:  # not the end of a batch
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = Unfinished(tmp_path / "s", KEYS, SHAPE, "float32").rows
    assert len(kept) >= 14 and len(kept) % 4 == 0  # whole batches of 4
    asked = []
    _, computed = build(tmp_path / "s", KEYS, SHAPE, "float32", rows(asked), together=4)
    assert set(asked) == KEYS.keys() - kept.keys() and computed == len(asked)
    assert files(tmp_path / "s") == files(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.npy", "s.parquet", "whole.npy", "whole.parquet"]


def interrupted(stem, count=10):
    def compute(ids):
        for item, _ in zip(rows([])(ids), range(count), strict=False):
            yield item
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(stem, KEYS, SHAPE, "float32", compute)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],  # cut in a line
        lambda text: text.replace("v3", "w3"),
        lambda text: "garbage\n" + text,
        lambda text: text.replace("[", "{"),
        lambda text: re.sub(r", \d, ", ", 9, ", text),  # other lengths
        lambda text: "",
    ],
)
def test_a_damaged_journal_costs_rows_and_never_gives_wrong_ones(tmp_path, spoil):
    interrupted(tmp_path / "s")
    journal = tmp_path / ".s.rows.part"
    journal.write_text(spoil(journal.read_text()))
    build(tmp_path / "s", KEYS, SHAPE, "float32", rows([]))
    build(tmp_path / "whole", KEYS, SHAPE, "float32", rows([]))
    assert files(tmp_path / "s") == files(tmp_path / "whole")


@pytest.mark.parametrize("cut", [0, 50, 5000])
def test_a_damaged_array_costs_its_rows(tmp_path, cut):
    interrupted(tmp_path / "s")
    array = tmp_path / ".s.npy.part"
    content = bytearray(array.read_bytes())
    content[200] ^= 1  # in the first row
    array.write_bytes(content[: len(content) - cut])
    asked = []
    build(tmp_path / "s", KEYS, SHAPE, "float32", rows(asked))
    build(tmp_path / "whole", KEYS, SHAPE, "float32", rows([]))
    assert "v0" in asked and files(tmp_path / "s") == files(tmp_path / "whole")


def test_rows_for_other_keys_or_another_type_are_not_taken_over(tmp_path):
    interrupted(tmp_path / "s")
    assert Unfinished(tmp_path / "s", KEYS, SHAPE, "float32").rows
    assert not Unfinished(tmp_path / "s", KEYS, SHAPE, "float16").rows
    assert not Unfinished(tmp_path / "s", KEYS | {"v3": "another"}, SHAPE, "float32").rows


def test_a_full_disk_is_told_before_anything_is_computed_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(ENOSPC, os.strerror(ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    asked = []
    with pytest.raises(UserError, match=r"0 MB are needed and [\d,]+ MB are free; make room") as error:
        build(tmp_path / "s", KEYS, SHAPE, "float32", rows(asked))
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []
