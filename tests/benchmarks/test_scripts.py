"""The benchmarks at toy size: each runs to its end, compares equal work, and states ratios within one run."""

import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from workbench import ROOT, workplace  # noqa: F401

from rap import shards
from rap.clip.backbone import DEMO
from rap.files import read_json

pytestmark = pytest.mark.slow

FOREIGN = ("open_clip", "ffmpeg", "imageio_ffmpeg", "av", "mlflow", "dvc", "ruamel", "torchvision", "matplotlib")


def figures(name: str) -> dict:
    return read_json(f"results/{name}.json")


def script(name: str, *options: object) -> None:
    command = [sys.executable, ROOT / f"benchmarks/{name}.py", *map(str, options)]
    result = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert not result.returncode, result.stdout[-3000:]


def test_features_has_a_share_and_a_floor_below_the_stage():
    import features

    features.main((DEMO, DEMO), clips=2, frames=2, batch=1, repeats=1)
    found = figures("features")["stages"]
    assert [(one["cache"], one["clips"]) for one in found] == [
        (cache, clips) for clips in (2, 32) for cache in ("video-0", "video-2", "video-all")
    ]
    for one in found:
        assert one["rate"] == pytest.approx(2 * one["clips"] / one["work"]) and 0 < one["floor"] < one["stage"]
        assert one["work"] == pytest.approx(one["stage"] - one["start"])
        assert one["share"] == pytest.approx(one["bare"] / one["work"])


def test_the_stage_computes_every_row_each_time_and_the_bare_pass_as_many_batches(monkeypatch):
    import features
    from lib import ours

    settings = features.project(DEMO, clips=7, frames=2, batch=2)
    clip = ours.load_clip(settings)
    pixels = torch.from_numpy(np.array(ours.rows(settings, "frames")))
    expected = ours.prefix(clip.visual, pixels, torch.full((7,), 2), 2).numpy()
    for _ in range(2):
        ours.remake_cache(settings, "video-2")
        made = ours.rows(settings, "video-2")
        np.testing.assert_allclose(made, expected, atol=0.01, rtol=0.01)  # stored with 16 bits
        np.save(ours.cache_folder(settings, "video-2") / "shard-0.npy", np.zeros_like(made))
    seen = []
    monkeypatch.setattr(clip.visual, "run", lambda x, start, stop, *rest: seen.append((x.shape, start, stop)))
    monkeypatch.setattr(features, "HELD", 2)
    features.bare(settings, clip, "video-2")()
    assert seen == [((2, 2, 64, 64, 3), -1, 2)] * 4


@pytest.mark.parametrize("depth", [0, 2, 4])
def test_the_bare_step_has_the_arithmetic_of_the_suffix_forward_and_backward(depth):
    import step
    from lib import ours

    run = ours.OpenedRun(step.project(step.values(DEMO, depth, batch=3, frames=2)), "LoRM")
    suffix, own, before = step.arithmetic(run, depth)
    clips = len(run.split.videos)
    whole = clips * ours.flops_per_clip(ours.bare_model(run.model.clip), 2)
    cosines = 2 * clips**2 * run.model.clip.embed_dim
    assert clips == 3 * (step.LARGE if depth == 4 else 1)
    assert 2 <= (suffix - 2 * cosines) / (whole - before) < 2.03  # attention has two factors to go back to
    assert 1 < own / suffix < (1.2 if depth == 4 else 1.01)  # LoRM adds the products of its factors
    assert all(weight.grad is None for weight in run.model.parameters())


def test_step_predicts_a_speedup_that_grows_with_depth(monkeypatch):
    import step
    from lib import ceilings

    monkeypatch.setattr(step, "LARGE", 2)
    monkeypatch.setattr(ceilings, "measure", lambda clip: ceilings.Ceilings({"float32": 1e12}, 1e12))
    step.main(DEMO, batch=2, frames=2, repeats=1)
    found = figures("step")["steps"]
    assert [(one["method"], one["depth"], one["batch"]) for one in found] == [
        ("LoRM", 0, 2), ("RAP", 0, 2), ("LoRA", 0, 2), ("LoRA-and-merge", 0, 2), ("RAP-and-merge", 0, 2),
        ("LoRM", 2, 2), ("RAP", 2, 2), ("LoRM-and-text", 2, 2),
        ("LoRM", 3, 2), ("RAP", 3, 2), ("LoRM", 4, 4),
    ]  # fmt: skip
    predicted = [one["predicted"] for one in found if one["method"] == "LoRM" and "frames" in one]
    assert predicted == sorted(predicted) and 1 < predicted[0] < 1.2 and predicted[2] > 5
    assert all(one["over_bare"] == pytest.approx(one["cache"] / one["bare"]) for one in found)
    counted = {one["method"]: one["counted"] for one in found if one["depth"] == 0}
    assert all(counted[f"{name}-and-merge"] < 0.8 * counted[name] for name in ("LoRA", "RAP"))
    assert all(one["floor"] < one["bare"] for one in found) and "frames" not in found[-1]


def test_a_step_is_divided_into_kinds_of_operations():
    import profiles

    assert [profiles.kind_of(f"aten::{name}") for name in ("addmm", "add_", "native_layer_norm_backward", "view")] == [
        "products", "elementwise, sums", "norms, activations", None,
    ]  # fmt: skip
    none, lorm, rap = profiles.at_depth(DEMO, 3, batch=2, frames=2)
    for one in (none, lorm, rap):
        assert min(one[kind] for kind in ("products", "attention", "copies, zeros")) > 0
        assert one["whole"] == pytest.approx(one["rest"] + sum(one[kind] for kind in profiles.KINDS))
        assert one["products"] > 0 and one["rest"] > 0


def test_both_ways_of_an_epoch_see_the_same_frames():
    import epoch
    from lib import ours, projects

    settings = projects.load(epoch.values(DEMO, frames=3, batch=2))
    epoch.project(settings, clips=3, seconds=1, height=120)
    ours.cut_frames(settings)
    rows, clips = ours.rows(settings, "frames"), epoch.Clips(settings)
    assert rows.any() and len(clips) == 3
    assert all(np.array_equal(row, clips[number][1]) for number, row in enumerate(rows))


def test_an_epoch_includes_its_share_of_what_comes_before(monkeypatch):
    import epoch

    monkeypatch.setattr(epoch, "alone", lambda work, *arguments: work(*arguments))
    epoch.main(DEMO, clips=3, seconds=1, height=120, frames=2, batch=2)
    found = figures("epoch")["ways"]
    assert set(found) == {epoch.VIDEOS, "depth_0", "depth_2", "depth_4"}
    for way in found.values():
        before = way["start"] + way.get("frames", 0) + way.get("features", 0)
        assert way["spread"] == pytest.approx(way["epoch"] + before / 5)
        assert way["speedup"] == pytest.approx(found[epoch.VIDEOS]["spread"] / way["spread"])


def test_the_script_for_a_gpu_runs_without_open_clip_and_ffmpeg():
    start = f"""import runpy, sys
sys.modules.update(dict.fromkeys({FOREIGN!r}))
runpy.run_path({str(ROOT / "benchmarks/gpu.py")!r}, None, "__main__")"""
    sizes = {"backbone": DEMO, "videos": 5, "frames": 2, "batch": 4, "epochs": 2, "repeats": 1, "precision": "float32"}
    options = [text for name, value in sizes.items() for text in (f"--{name}", str(value))]
    subprocess.run([sys.executable, "-c", start, *options], check=True)
    assert figures(f"gpu-{DEMO}-float32")["stages"]


def test_gpu_trains_from_three_depths():
    import gpu

    gpu.main(DEMO, "float32", videos=5, frames=2, batch=4, epochs=2, repeats=1)
    found = figures(f"gpu-{DEMO}-float32")
    assert [stage["cache"] for stage in found["stages"]] == ["video-0", "video-2", "video-4"]
    assert [(one["method"], one["depth"]) for one in found["trainings"]] == [
        ("LoRM", 0), ("RAP", 0), ("LoRM", 2), ("RAP", 2), ("LoRM", 4),
    ]  # fmt: skip
    assert all(one["steps"] == 4 and one["seconds"] > 0 and one["memory"] > 0.1 for one in found["trainings"])


def test_gpu_reports_a_training_that_does_not_fit(monkeypatch):
    import gpu
    from lib import ours

    settings = gpu.project(DEMO, "float32", videos=3, frames=2, batch=2, epochs=1, depth=4)
    for cache in settings.features.caches:
        ours.make_cache(settings, cache, 0)

    def full(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(ours.OpenedRun, "train", full)
    assert gpu.training(settings, "LoRM")["time"] == "does not fit"


def test_all_decoders_show_the_same_pictures(tmp_path):
    """At the same instants; the JPEG files have others. Neighbouring pictures differ by more."""
    import decoders

    video = decoders.film(tmp_path / "a.mp4", 240, 3, 25)
    methods = {name: method for name, method in decoders.available().items() if name not in (decoders.JPEG, "floor")}
    shown = {name: method(video, tmp_path).astype(float) for name, method in methods.items()}
    ours = shown["ours, ffmpeg"]
    assert len(shown) >= 3 and abs(ours[1:] - ours[:-1]).mean() > 8
    for name, frames in shown.items():
        assert frames.shape == ours.shape and abs(frames - ours).mean() < 3, name


def test_decoders_measures_every_method():
    import decoders

    script("decoders", "--seconds", 2, "--repeats", 1, "--heights", 96)
    rows = figures("decoders")["methods"]
    assert [row["method"] for row in rows] == [*decoders.available()] * 2
    sizes = {row["method"]: row.get("megabytes", 0) for row in rows}
    assert sizes["ours, sparse"] == 12 * 224 * 224 * 3 / 1e6 > sizes[decoders.JPEG] > sizes["floor"] == 0
    assert all(row["jpeg_one"] == 1 for row in rows if row["method"] == decoders.JPEG)


def test_evaluation_compares_the_stage_with_sorting():
    script("evaluation", "--captions", 60, "--videos", 20, "--backbones", DEMO, "--repeats", 1)
    found = figures("evaluation")
    for one in found["matrices"]:
        assert one["ratio"] == pytest.approx(one["theirs"]["seconds"] / one["ours"]["seconds"])
        assert one["MB"] == 4 * 60 * 20 / 1e6 and 0 < one["floor"] < one["ours"]["seconds"]
    assert all(one["floor"] > one["together"] > 0 for one in found["pairs"])


def test_search_finds_more_in_more_groups():
    script("search", "--videos", 3000)
    exact, *found = (row["recall"] for row in figures("search")["rows"])
    assert exact == 100 and found == sorted(found) and found[-1] > 90


def test_page_waits_for_both_kinds_of_answers():
    script("page", "--videos", 20, "--backbone", DEMO)
    rows = figures("page")["rows"]
    assert [row["answer"] for row in rows] == ["to a text", "to a video: ranking alone"]
    assert all(0 < row["median"] <= row["most"] for row in rows)


def test_the_dry_run_and_the_units_agree_on_the_size_of_caches(clips, tmp_path):
    options = {"videos": 20, "tested": 4, "captions": 2, "frames": 12, "depth": 3, "batch": 8, "epochs": 1}
    script("msrvtt_size", "--backbone", DEMO, *(text for name, n in options.items() for text in (f"--{name}", n)))
    run = figures("msrvtt-depth-3")
    facts, commands = run["project"], [stage["command"].split()[0] for stage in run["stages"]]
    assert commands == ["train", "train", "evaluate", "evaluate", "table"]
    assert (facts["videos"], facts["pairs"], facts["steps"]) == (18, 36, 5)  # 2 of 20 set aside; 36 pairs by 8
    assert (facts["tested"], facts["queries"], facts["caches"]["video"]) == (4, 4, "video-3")
    assert all(0.1 < stage["own"] < stage["resident"] < 10 and stage["cpu_seconds"] > 0.5 for stage in run["stages"])
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/picture.mp4").symlink_to(clips / "picture.mp4")
    script("units", "videos", "--repeats", 1, "--backbone", DEMO)
    units = figures("units")["units"]["12 frames"]
    bytes_of = {f"video-{one['depth']}": one["bytes"] for one in units["depths"]}
    for cache, size in facts["cache_bytes"].items():
        if cache.startswith("video"):
            assert size - 8 * 128 == 24 * bytes_of[cache]  # 8 shards, each with a header of 128 bytes
    kept = [one["kept_bytes"] for one in units["depths"] if "kept_bytes" in one]
    assert kept == sorted(kept, reverse=True) and units["decode"] > 0


def test_manifest_runs_to_its_end(capsys):
    import manifest

    manifest.main(videos=40, captions=2)
    assert capsys.readouterr().out.count(" MB ") == 5


@pytest.fixture
def verifying(monkeypatch):
    """`rap.shards.verify` that takes 0.2 ms per row."""
    monkeypatch.setattr(shards, "verify", lambda rows, sums, where: time.sleep(2e-4 * len(rows)))


def test_verification_has_a_ratio_and_the_share_of_verify(verifying):
    import verification

    verification.main((DEMO, DEMO), (4, 4), repeats=3)
    found = figures("verification")["works"]
    assert [one["work"] for one in found] == ["8 steps", "features", "2 steps", "features"]
    for one in found:
        assert one["ratio"] > 0 and 0 < one["share"] < 100 and one["verified"] > 2e-4 * one["rows"]


def test_verification_refuses_a_stage_that_does_not_verify():
    import verification

    with pytest.raises(RuntimeError, match="no row was verified"):
        verification.compared(lambda: None, np.zeros((1, 2)), repeats=1)


def test_indexing_ends_at_the_embeddings_of_the_other_way():
    pytest.importorskip("cv2", reason="OpenCV, an extra of the benchmarks, is not installed")
    sizes = {"minutes": 1, "clips": 2, "seconds": 4, "height": 90, "every": 20, "backbone": "ViT-S-32-alt"}
    script("indexing", *(text for name, n in sizes.items() for text in (f"--{name}", n)))
    rows = figures("indexing")["rows"]
    assert len(rows) == 2 * 5 and all(row["cosine"] > 0.99 and row["seconds"] > 0 for row in rows)
    disk = {(row["videos"], row["way"]): row["disk"] for row in rows}
    for videos in {row["videos"] for row in rows}:
        assert disk[videos, "frames stored"] > 5 * disk[videos, "one pass"]


def test_recordings_are_indexed_in_spans():
    script("recordings", "--files", 2, "--minutes", 0.25, "--every", 7)
    found = figures("recordings")
    assert found["hours"] == pytest.approx(0.5 / 60) and found["steps"][0]["share"] == 1
    assert all(step["speed"] == pytest.approx(0.5 / step["minutes"]) for step in found["steps"])


def test_families_compares_with_open_clip_and_measures_each_size():
    import families
    import tiny_families

    tiny_families.register()
    names = ("rap-siglip", "rap-pe")
    families.main(names, (DEMO,), clips=4, frames=2, batch=2, repeats=1)
    found = figures("families")
    assert [(one["backbone"], one["cache"]) for one in found["features"]] == [
        (name, cache) for name in names for cache in ("video-1", "video-all")
    ]
    assert all(one["share"] == pytest.approx(one["bare"] / one["work"]) for one in found["features"])
    assert [one["backbone"] for one in found["features"] if one.get("theirs", 0) > 0] == list(names)
    assert [(one["backbone"], one["method"], one["depth"]) for one in found["steps"]] == [
        (name, "LoRM", 1) for name in names
    ]
    assert [one["precision"] for one in found["sizes"]] == ["float32", "bfloat16"]
    assert all(one["peak"] > 0.1 and one["seconds"] > 0 for one in found["sizes"])
