"""The four benchmarks with their real annotation files: the counts behind published results, and the download.

Small files of the same format replace those that are not available (MSRVTT_data.json, some training sets).
"""

import json
import shutil
from os.path import splitext
from pathlib import Path

import do
import pytest

from rap.data import benchmark, registry
from rap.data.datasets import activitynet, didemo, msrvtt, msvd
from rap.data.manifest import SPLITS, Manifest
from rap.data.registry import departures

REAL = {"msrvtt": ("video7020", "video9999"), "msvd": ("-4wsuPCjDBc_5_15", "eyhzdC936uk_15_27")}
REAL |= {"didemo": ("35034348999@N01_6060447507_dc1a90b8ef", "37843859@N06_5654920991_003e16a16a")}
REAL |= {"activitynet": ("v_uqiMw7tQ1Cc", "v_-MFzpFMdWZs")}


def complete(folder: Path) -> Path:
    """Add replacements for missing files: 20 captions per video of MSR-VTT, and a few training videos."""
    replacements = {
        "msrvtt": {
            "MSRVTT_data.json": {
                "info": {"year": "2016"},
                "videos": [],
                "sentences": [
                    {"sen_id": 20 * n + k, "video_id": f"video{n}", "caption": f"caption {k} of {n}"}
                    for n in range(10_000)
                    for k in range(20)
                ],
            }
        },
        "didemo": {
            f"{name}_data.json": [{"video": f"{name}.mov", "description": f"moment {n}"} for n in range(4)]
            for name in ("train", "test")
        },
        "activitynet": {"train.json": {f"v_train{n}": {"sentences": [f"sentence {n}."]} for n in range(600)}},
    }
    for name, content in replacements.get(folder.name, {}).items():
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.fixture
def prepared(project, annotations):
    """`prepared(module)`: the manifest from the real annotations, without videos."""

    def prepare(module, **keys) -> Manifest:
        name = module.__name__.rpartition(".")[2]
        folder = complete(annotations(name))
        return module.prepare(project(dataset={"name": name, "annotations": str(folder), **keys}), Path("videos"))

    return prepare


def counts(manifest: Manifest) -> dict[str, tuple[int, int]]:
    """Videos and captions of each split."""
    parts = {name: manifest.split(name) for name in SPLITS}
    return {name: (len(part.videos), len(part.captions)) for name, part in parts.items()}


def test_msrvtt_has_the_1k_a_test_with_one_query_a_video(prepared):
    manifest = prepared(msrvtt, validation=0)
    assert counts(manifest) == {"train": (9_000, 180_000), "val": (0, 0), "test": (1_000, 1_000)}
    test = manifest.split("test")
    first = test.captions.iloc[0]
    assert (first.video_id, first.caption) == ("video9770", "a person is connecting something to system")
    assert not set(test.videos.video_id) & set(manifest.split("train").videos.video_id)
    assert manifest.notes == ()


def test_msvd_uses_every_caption_of_670_videos_as_a_query_including_repeated_ones(prepared):
    manifest = prepared(msvd)
    assert counts(manifest) == {"train": (1_200, 48_774), "val": (100, 4_290), "test": (670, 27_763)}
    assert manifest.notes == ("10845 captions repeat another of their video: kept, as in the protocol",)
    assert manifest.captions.caption[0] == "a squirrel is eating a peanut in it s shell"
    assert manifest.videos.video_id.str.startswith("-").sum() == 46


def test_didemo_has_one_paragraph_a_video_and_the_first_30_seconds(prepared):
    """4,180 descriptions of 1,065 videos, 29 of which are listed under two suffixes."""
    manifest = prepared(didemo)
    assert counts(manifest) == {"train": (1, 1), "val": (1_065, 1_065), "test": (1, 1)}
    assert manifest.videos.start.isna().all() and (manifest.videos.end == 30).all()
    video = "86091119@N00_9730924433_5e313871ff"  # three moments of its .mov, two of its .mp4; one sentence is in both
    paragraph = manifest.captions.set_index("video_id").caption[video]
    assert paragraph.count("first time man in hat points to his left") == 2
    assert paragraph.endswith("person with red shirt enters the tunnel or doorway") and "\n" not in paragraph
    assert "29 videos have two names" in " ".join(manifest.notes)


def test_didemo_as_clip4clip_reads_it_has_the_moments_of_the_listed_names_alone(project, annotations):
    folder = complete(annotations("didemo"))
    moments = json.loads((folder / "val_data.json").read_text())
    names = list(dict.fromkeys(moment["video"] for moment in moments))
    first = {splitext(name)[0]: name for name in reversed(names)}  # one name for each video
    lists = {"train": ["train.mov"], "val": list(first.values())[1:], "test": ["test.mov"]}
    for split, listed in lists.items():
        (folder / f"{split}_list.txt").write_text("\n".join(listed) + "\n")
    dataset = {"name": "didemo", "annotations": str(folder), "didemo": {"paragraph": "listed"}}
    manifest = didemo.prepare(project(dataset=dataset), Path("videos"))
    assert counts(manifest) == {"train": (1, 1), "val": (1_064, 1_064), "test": (1, 1)}
    paragraphs = manifest.captions.set_index("video_id").caption
    for id, name in list(first.items())[1:]:
        own = " ".join(" ".join(moment["description"].split()) for moment in moments if moment["video"] == name)
        assert paragraphs[id] == own
    left = sum(moment["video"] not in lists["val"] for moment in moments)
    assert f"{left} descriptions belong to a name in no list: left out" in " ".join(manifest.notes)


def test_activitynet_has_one_paragraph_for_each_video_of_val_1(prepared):
    manifest = prepared(activitynet, validation=100)
    assert counts(manifest) == {"train": (500, 500), "val": (100, 100), "test": (4_917, 4_917)}
    captions = manifest.captions.set_index("video_id").caption
    assert captions["v_uqiMw7tQ1Cc"] == (
        "A weight lifting tutorial is given. The coach helps the guy in red with the proper body placement and "
        "lifting technique."
    )
    assert captions.str.contains("piñata").any() and not captions.str.contains(r"\s\s|\n").any()


@pytest.mark.parametrize(
    ("name", "spelt"),
    [
        ("activitynet", "uqiMw7tQ1Cc.mp4"),  # of CLIP4Clip
        ("didemo", "86091119@N00_9730924433_5e313871ff.mov.mp4"),  # of DGL
        ("didemo", "86091119@N00_9730924433_5e313871ff.mp4.mp4"),  # the second of its two official names
        ("didemo", "86091119@N00_9730924433_5e313871ff.avi"),
    ],
)
def test_other_spellings_of_a_file_name_are_found(name, spelt, project, annotations):
    folder = complete(annotations(name))
    Path("elsewhere").mkdir()
    Path("elsewhere", spelt).touch()
    dataset = {"name": name, "annotations": str(folder), "videos": "elsewhere"}
    manifest = registry.prepare(project(dataset=dataset))
    assert (manifest.videos.path == spelt).sum() == 1
    told = f"1 videos were found under another name than the official one, such as {spelt}"
    assert (told in manifest.notes) == (not spelt.endswith(".avi"))


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_download_finds_videos_by_name_and_counts_the_missing_ones(name, project, annotations, clips):
    """In any container and sub-folder; `rap download` completes and reports what it found."""
    folder, (one, two) = complete(annotations(name)), REAL[name]
    videos = Path("elsewhere")
    (videos / "part 1").mkdir(parents=True)
    shutil.copy(clips / "one.mp4", videos / f"{one}.mp4")
    shutil.copy(clips / "one.webm", videos / "part 1" / f"{two}.webm")
    dataset = {"name": name, "annotations": str(folder), "videos": str(videos), "max_failed": 1.0}
    summary = do.download(project(dataset=dataset))
    table = Manifest.read(f"data/{name}/manifest").videos.set_index("video_id")
    there = table[table.status == "ok"]
    assert there.path.to_dict() == {one: f"{one}.mp4", two: f"part 1/{two}.webm"}
    assert there.duration.between(0.03, 0.06).all() and table.duration.notna().sum() == 2
    assert f"{len(table) - 2} failed" in summary
    assert ("10845 captions repeat another of their video" in summary) == (name == "msvd")
    assert set(table.reason) == {"", "cannot be opened: No such file or directory"}
    frames, words = (64, 64) if name in ("didemo", "activitynet") else (12, 32)
    assert f"frames.count is 8; published results on {name} use {frames}" in summary
    assert f"features.max_words is 26; published results on {name} use {words}" in summary
    assert list(videos.rglob("*.*")) == [videos / f"{one}.mp4", videos / "part 1" / f"{two}.webm"]


def test_parameters_of_the_protocol_give_no_note(project):
    settings = {"frames": {"count": 12}, "features": {"max_words": 32}}
    assert departures(project(dataset={"name": "msvd"}, **settings)) == []
    assert len(departures(project(dataset={"name": "didemo"}, **settings))) == 2
    assert departures(project(**settings)) == []


def test_validation_depends_on_the_ids_alone_and_grows_by_addition():
    ids = [f"video{n}" for n in range(200)]
    few, more, shuffled = (benchmark.carve(some, size) for some, size in ((ids, 20), (ids, 50), (ids[::-1], 50)))
    assert set(few["val"]) < set(more["val"]) == set(shuffled["val"])
    assert (len(few["val"]), len(few["train"]), len(more["val"])) == (20, 180, 50)
    assert sorted(few["val"] + few["train"]) == sorted(ids)
    assert set(benchmark.carve(ids, 3)["val"]) == {"video20", "video91", "video12"}  # computed with sha256sum
