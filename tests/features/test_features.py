"""The features stage: a changed video re-computes only itself, a failed one stays out, 16 bits are nearly 32."""

import do
import numpy as np
import pytest
import sealed
import tiny
import torch
from safetensors.torch import load_file, save_file

from rap import paths
from rap.clip.towers import INPUT
from rap.errors import UserError
from rap.features.cache import Cache, choose, deeper, position
from rap.files import digest_file, read_json, write_json
from rap.jobs import Job
from rap.shards import Item, Shard, build, seal


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tiny.project(tmp_path)


def rewrite_frames(params, shard, change):
    """Frames of a shard with `change` (id -> key, Item) applied."""
    stem = paths.frames(params.dataset.name, shard)
    old = Shard.read(stem)
    items = {
        r.id: (r.key, Item(r.id, np.array(a), r.length)) for r, a in zip(old.index.itertuples(), old.array, strict=True)
    }
    items |= change
    keys = {id: key for id, (key, _) in items.items()}
    made, _ = build(stem, keys, old.array.shape[1:], "uint8", lambda ids: [items[id][1] for id in ids])
    seal(made, Job(params, "frames", {"shard": shard}).result)


def test_a_changed_video_recomputes_only_itself(project):
    do.features(project, "video-1", 0)
    stem = paths.features(project.dataset.name, "video-1", 0)
    before = np.array(Shard.read(stem).array)
    assert "up to date" in do.features(project, "video-1", 0)
    black = Item("v2", np.zeros((project.frames.count, 32, 32, 3), np.uint8), project.frames.count)
    rewrite_frames(project, 0, {"v2": ("other", black)})
    assert " 1 computed" in do.features(project, "video-1", 0)
    after = Shard.read(stem)
    changed = [id for id, a, b in zip(after.index.id, before, after.array, strict=True) if not np.array_equal(a, b)]
    assert changed == ["v2"]


def test_rows_do_not_depend_on_what_shares_their_batch(project):
    """Incremental work gives the bytes of work from scratch."""
    do.features(project, "video-2", 0)
    stem = paths.features(project.dataset.name, "video-2", 0)
    whole = np.array(Shard.read(stem).array)
    alone = project.model_copy(update={"features": project.features.model_copy(update={"batch": 1})})
    stem.with_suffix(".parquet").unlink()
    do.features(alone, "video-2", 0)
    np.testing.assert_allclose(Shard.read(stem).array, whole, rtol=0, atol=2e-6)


def test_a_failed_video_is_left_out_with_its_reason(project):
    rewrite_frames(project, 0, {"v2": ("broken", Item("v2", reason="no picture"))})
    summary = do.features(project, "video-all", 0)
    do.features(project, "video-all", 1)
    cache = Cache(project, "video-all", tiny.clip().visual)
    assert "1 failed" in summary and "v2" not in cache and cache.reasons == {"v2": "no picture"}


@pytest.mark.parametrize(("dtype", "steps"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_half_precision_is_half_the_size_and_rounded_once(project, dtype, steps):
    """Read back, a number is the float32 one rounded to 10 or 7 further binary digits."""
    tower, ids = tiny.clip().visual, ["v0", "v1", "v5"]

    def cached(params):
        for shard in params.shards:
            do.features(params, "video-1", shard)
        cache = Cache(params, "video-1", tower)
        return cache.nbytes, cache.batch(ids).to(torch.device("cpu")).x

    whole_bytes, whole = cached(project)
    half = project.model_copy(update={"features": project.features.model_copy(update={"dtype": dtype})})
    half_bytes, rounded = cached(half)
    assert half_bytes * 2 == whole_bytes and rounded.dtype == torch.float32
    assert torch.equal(rounded, whole.to(getattr(torch, dtype)).float())
    np.testing.assert_allclose(rounded, whole, rtol=steps, atol=1e-7)


def test_features_of_mixed_precision_are_rows_of_their_own(project):
    do.features(project, "video-2", 0)
    stem = paths.features(project.dataset.name, "video-2", 0)
    whole = np.array(Shard.read(stem).array)
    mixed = project.model_copy(update={"runtime": project.runtime.model_copy(update={"precision": "bfloat16"})})
    assert " 4 computed" in do.features(mixed, "video-2", 0)
    assert "up to date" in do.features(mixed, "video-2", 0)
    found = Shard.read(stem).array
    assert (found != whole).any()
    np.testing.assert_allclose(found, whole, rtol=0.05, atol=0.05)
    assert " 4 computed" in do.features(project, "video-2", 0)


def test_rows_of_another_number_of_threads_are_not_taken_over(project):
    """A product may be summed in another order, which moves the last bits."""
    do.features(project, "video-2", 0)
    more = project.model_copy(update={"runtime": project.runtime.model_copy(update={"threads": 2, "device": "cpu"})})
    assert " 4 computed" in do.features(more, "video-2", 0)
    assert "up to date" in do.features(more, "video-2", 0)


def test_rows_of_another_batch_are_not_taken_over(project):
    """A product of another shape may take another kernel, which moves the last bits."""
    do.features(project, "video-2", 0)
    more = project.model_copy(update={"features": project.features.model_copy(update={"batch": 1})})
    assert " 4 computed" in do.features(more, "video-2", 0)


@pytest.mark.parametrize(
    "change", [{"preprocess": {"mean": [0.1, 0.5, 0.5]}}, {"model": {"quick_gelu": True}}], ids=["mean", "activation"]
)
def test_rows_of_the_same_weights_with_another_arithmetic_are_not_taken_over(project, change):
    """Tags of one architecture may share a file of weights."""
    do.features(project, "video-2", 0)
    stem = paths.features(project.dataset.name, "video-2", 0)
    before = np.array(Shard.read(stem).array)
    folder = paths.backbone(project.backbone.name)
    config = read_json(folder.config)
    ((part, values),) = change.items()
    write_json(folder.config, config | {part: config[part] | values})
    sealed.backbone(project)
    assert " 4 computed" in do.features(project, "video-2", 0)
    assert (Shard.read(stem).array != before).any()


def test_numbers_that_float16_cannot_hold_are_refused(project):
    folder = paths.backbone(project.backbone.name)
    weights = load_file(folder.weights)
    weights["visual.ln_pre.weight"] *= 1e6
    save_file(weights, folder.weights)
    write_json(folder.config, read_json(folder.config) | {"digest": digest_file(folder.weights)})
    sealed.backbone(project)
    small = project.model_copy(update={"features": project.features.model_copy(update={"dtype": "float16"})})
    with pytest.raises(UserError, match=r"features\.dtype: float16 is too small .* bfloat16"):
        do.features(small, "video-0", 0)
    assert not paths.features(project.dataset.name, "video-0", 0).record.exists()


def test_a_method_that_starts_at_the_pixels_needs_no_deeper_cache(project):
    tower = tiny.clip().visual
    assert deeper("frames", "video", tower, INPUT) == "" and deeper("video-0", "video", tower, 2) == "video-2"
    unstored = project.model_copy(update={"frames": project.frames.model_copy(update={"store": False})})
    with pytest.raises(UserError, match=r"no cache for a method that starts at frames; set frames\.store: true"):
        choose(unstored, "video", tower, INPUT)
    deep = project.model_copy(update={"features": project.features.model_copy(update={"caches": ("video-2",)})})
    with pytest.raises(UserError, match=r"starts at text-all; add text-all to features\.caches"):
        choose(deep, "text", tiny.clip().text, torch.inf)


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
