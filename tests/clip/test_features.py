"""The features stage: a changed video re-computes only itself, a failed one stays out, 16 bits are nearly 32."""

import numpy as np
import pytest
import tiny
import torch

from rap.clip import features
from rap.clip.caches import Cache, choose, position
from rap.clip.towers import INPUT
from rap.data.shards import Item, Shard, build
from rap.errors import UserError


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tiny.project(tmp_path)


def rewrite_frames(params, shard, change):
    """Frames of a shard with `change` (id -> key, Item) applied."""
    stem = params.data / "frames" / f"shard-{shard}"
    old = Shard.read(stem)
    items = {
        r.id: (r.key, Item(r.id, np.array(a), r.length)) for r, a in zip(old.index.itertuples(), old.array, strict=True)
    }
    items |= change
    keys = {id: key for id, (key, _) in items.items()}
    build(stem, keys, old.array.shape[1:], "uint8", lambda ids: [items[id][1] for id in ids])


def test_a_changed_video_recomputes_only_itself(project):
    features.run(project, "video-1", 0)
    stem = project.data / "features/video-1/shard-0"
    before = np.array(Shard.read(stem).array)
    assert " 0 computed" in features.run(project, "video-1", 0)
    black = Item("v2", np.zeros((project.frames.count, 32, 32, 3), np.uint8), project.frames.count)
    rewrite_frames(project, 0, {"v2": ("other", black)})
    assert " 1 computed" in features.run(project, "video-1", 0)
    after = Shard.read(stem)
    changed = [id for id, a, b in zip(after.index.id, before, after.array, strict=True) if not np.array_equal(a, b)]
    assert changed == ["v2"]


def test_rows_do_not_depend_on_what_shares_their_batch(project):
    """Incremental work gives the bytes of work from scratch."""
    features.run(project, "video-2", 0)
    stem = project.data / "features/video-2/shard-0"
    whole = np.array(Shard.read(stem).array)
    alone = project.model_copy(update={"features": project.features.model_copy(update={"batch": 1})})
    stem.with_suffix(".parquet").unlink()
    features.run(alone, "video-2", 0)
    np.testing.assert_allclose(Shard.read(stem).array, whole, rtol=0, atol=2e-6)


def test_a_failed_video_is_left_out_with_its_reason(project):
    rewrite_frames(project, 0, {"v2": ("broken", Item("v2", reason="no picture"))})
    summary = features.run(project, "video-all", 0)
    features.run(project, "video-all", 1)
    cache = Cache(project, "video-all", tiny.clip().visual)
    assert "1 failed" in summary and "v2" not in cache and cache.reasons == {"v2": "no picture"}


def test_half_precision_is_close_and_half_the_size(project):
    features.run(project, "video-0", 0)
    whole = Shard.read(project.data / "features/video-0/shard-0").array.copy()
    half = project.model_copy(update={"features": project.features.model_copy(update={"dtype": "float16"})})
    features.run(half, "video-0", 0)
    stored = Shard.read(project.data / "features/video-0/shard-0").array
    assert stored.nbytes * 2 == whole.nbytes
    np.testing.assert_allclose(stored, whole, rtol=1e-3, atol=1e-4)


def test_the_deepest_usable_cache_is_chosen(project):
    clip = tiny.clip()
    assert choose(project, "video", clip.visual, 2) == "video-2"
    assert choose(project, "video", clip.visual, 3) == "video-2"
    assert choose(project, "video", clip.visual, torch.inf) == "video-all"
    assert choose(project, "video", clip.visual, INPUT) == "frames"
    assert choose(project, "text", clip.text, 0) == "text-ids"
    few = project.model_copy(update={"features": project.features.model_copy(update={"caches": ("text-all",)})})
    with pytest.raises(UserError, match="add text-0"):
        choose(few, "text", clip.text, 0)
    with pytest.raises(UserError, match="deeper than the tower's 3 blocks"):
        position("video-9", clip.visual)
