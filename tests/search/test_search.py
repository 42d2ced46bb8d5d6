"""Search: the ranking is that of the model's own similarities, an index never answers for another adapter or video."""

import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import do
import numpy as np
import pytest
import tiny
from PIL import Image

from rap import paths
from rap.data.manifest import Manifest
from rap.errors import UserError
from rap.jobs import Job
from rap.params import Variant
from rap.provenance import Record
from rap.runtime.alone import alone
from rap.search import index
from rap.search import query as search
from rap.shards import Item, Shard, build, seal

QUERY = "a red ball rolls left"


@pytest.fixture
def project(cached, tmp_path, monkeypatch):
    folder, params = cached
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return params


HEAVY = ("open_clip", "torchvision", "timm", "matplotlib", "mlflow", "dvc", "faiss")
SEARCHES = f"""
import sys
from rap import params
from rap.clip.tokenizer import tokenize
from rap.search import query
tokenize(["a dog"], {{"kind": "bpe"}}, 8)
query.run(params.load(), ["{QUERY}"], [], "zero_shot", 0, None, False, "all", 3, "table", None)
print([name for name in {HEAVY} if name in sys.modules])
"""


@pytest.mark.slow
def test_a_search_imports_nothing_that_it_does_not_use(project):
    said = subprocess.run([sys.executable, "-c", SEARCHES], capture_output=True, text=True)
    assert said.stdout.splitlines()[-1:] == ["[]"], said


def find(
    params,
    *queries,
    like=(),
    variant="zero_shot",
    seed=0,
    adapter=None,
    split="all",
    top=10,
    form="table",
    picture=None,
) -> str:
    asked = [*queries] if queries or like else [QUERY]
    return search.run(params, asked, [*like], variant, seed, adapter, False, split, top, form, picture)


def ranked(said: str) -> list[str]:
    """The names of the videos, best first."""
    return re.findall(r"(v\d+)\.mp4", said)


@pytest.mark.parametrize("variant", ["zero_shot", "rap", "full"])
def test_captions_find_what_the_evaluation_finds(project, variant):
    do.train(project, variant, 0)
    do.evaluate(project, variant, 0)
    similarity = np.load(paths.run(variant, 0) / "similarity.npy")
    split = Manifest.read(paths.manifest(project.dataset.name)).split("test")
    videos = np.array(list(dict.fromkeys(split.captions.video_id)))
    for caption, row in zip(split.captions.caption, similarity, strict=True):
        said = find(project, caption, variant=variant, split="test")
        found = ranked(said)
        cosines = [row[list(videos).index(name)] for name in found]
        assert sorted(found) == sorted(videos) and (np.diff(cosines) <= 2e-5).all()
        assert [float(number) for number in re.findall(r"^ +\d+ +(-?0\.\d+)", said, re.M)] == pytest.approx(
            cosines, abs=1e-3
        )


def test_the_best_rows_are_exact_and_keeps_the_order_of_equals():
    random = np.random.default_rng(0)
    embeddings, query = random.integers(-2, 3, (200, 4)).astype(np.float32), np.ones(4, np.float32)
    wanted = sorted(range(200), key=lambda row: (-embeddings[row].sum(), row))
    assert index.best(embeddings @ query, 7).tolist() == wanted[:7]
    assert index.best(embeddings @ query, 999).tolist() == wanted


def test_an_index_is_made_once_and_grows_by_what_is_new(project):
    assert "8 indexed now" in find(project)
    assert "indexed now" not in find(project, "something else")
    tiny.manifest(12).write(paths.manifest(project.dataset.name), Job(project, "download", {}).result)
    for shard in project.shards:
        tiny.noise_frames(project, shard)
    tiny.cache(project)
    said = find(project)
    assert "4 indexed now" in said and "12 videos searched" in said
    whole = find(project, top=12)
    shutil.rmtree(paths.index(project.dataset.name, "model").parent)
    assert ranked(find(project, top=12)) == ranked(whole)


@pytest.mark.slow
def test_the_second_of_two_searches_waits_until_the_index_is_made(project):
    find(project)
    (stem,) = {file.with_suffix("") for file in paths.index(project.dataset.name, "model").parent.glob("*.json")}
    said: list[str] = []
    with alone(f"{stem}.json", "rap search"):
        second = threading.Thread(target=lambda: said.append(find(project)))
        second.start()
        second.join(1.5)
        assert second.is_alive() and not said
    second.join(60)
    assert ranked(said[0])


def test_a_video_that_changes_is_indexed_again(project):
    find(project)
    stem = paths.frames(project.dataset.name, 0)
    shard = Shard.read(stem)
    changed = shard.index.id[0]
    keys = dict(zip(shard.index.id, shard.index.key, strict=True)) | {changed: "other frames"}
    job = Job(project, "frames", {"shard": 0}, read=Record.read(f"{stem}.json").provenance.inputs)
    seal(
        build(stem, keys, shard.array.shape[1:], "uint8", lambda _: [Item(changed, 255 - shard.array[0], 4)])[0],
        job.result,
    )
    tiny.cache(project)
    grown = find(project)
    assert "1 indexed now" in grown
    shutil.rmtree(paths.index(project.dataset.name, "model").parent)
    assert find(project).startswith(grown.split("\n\n")[0])


def test_another_adapter_has_an_index_of_its_own(project):
    for seed in (0, 1):
        do.train(project, "rap", seed)
        assert "8 indexed now" in find(project, variant="rap", seed=seed)
    first, second = (find(project, variant="rap", seed=seed) for seed in (0, 1))
    assert "indexed now" not in first + second and first != second


def test_a_travelled_adapter_searches_as_the_run_does(project, tmp_path):
    do.train(project, "rap", 0)
    file = shutil.copy(paths.run("rap", 0) / "adapter.safetensors", tmp_path / "mine.safetensors")
    want = find(project, variant="rap")
    shutil.rmtree("results")
    assert ranked(find(project, adapter=str(file))) == ranked(want)


def test_the_picture_shows_the_frames_of_what_was_found(project):
    find(project, r"what costs $\frac$", picture="sheet.png", top=3)  # no mathematics
    find(project, picture="sheet.png", top=3)
    first = Path("sheet.png").read_bytes()
    with Image.open("sheet.png") as image:
        assert image.width > 300 and image.height > 400
    find(project, picture="sheet.png", top=3)
    assert Path("sheet.png").read_bytes() == first


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"queries": ("  ",)}, "search: the query is empty"),
        ({"queries": ("one", "two"), "picture": "found.png"}, "--picture: a contact sheet shows one search"),
        ({"like": ("absent.jpg",)}, "--like: absent.jpg is not there"),
        ({"like": ("params.yaml",)}, "params.yaml: not a readable video"),
        ({"variant": "rapp"}, "there is no 'rapp'; did you mean 'rap'?"),
        (
            {"variant": "rap"},
            "results/runs/rap/seed-0/adapter.safetensors: not trained yet; run `rap train --variant rap",
        ),
        ({"split": "tset"}, "no split 'tset'; did you mean 'test'?"),
        ({"split": "val"}, "split 'val' has no video that could be decoded"),
        ({"picture": "params.yaml/found.png"}, "--picture: params.yaml/found.png cannot be written"),
        ({"adapter": "mine.pt"}, "mine.pt: not there"),
    ],
)
def test_a_mistake_is_one_line(project, asked, said):
    with pytest.raises(UserError, match=re.escape(said)) as error:
        find(project, *asked.get("queries", ()), **{key: value for key, value in asked.items() if key != "queries"})
    assert "\n" not in str(error.value)


def test_other_frames_and_text_conditioned_methods_are_refused(project):
    text = Variant(adapter="asa", asa={"blocks": [1], "form": "attention", "query": "text", "top_k": 2})
    asked = project.model_copy(update={"variants": project.variants | {"text": text}, "run": ("text",)})
    do.train(asked, "text", 0)
    with pytest.raises(UserError, match="text: it has no embedding of a video without a text"):
        find(asked, variant="text")
    do.train(project, "rap", 0)
    other = project.model_copy(update={"frames": project.frames.model_copy(update={"count": 3})})
    with pytest.raises(UserError, match=r"frames.count is 3, and the adapter was trained with 4"):
        find(other, variant="rap")


def test_the_ten_lines_of_the_documentation_run(project, clips, capsys):
    do.train(project, "rap", 0)
    shutil.copy(paths.run("rap", 0) / "adapter.safetensors", "their-adapter.safetensors")
    shutil.copytree(paths.backbone(project.backbone.name), "data/backbones/ViT-B-32")
    for name, clip in {"one": "steady.mp4", "two": "one.mp4", "three": "portrait.mp4"}.items():
        shutil.copy(clips / clip, f"{name}.mp4")
    lines = re.search(r"^```python\n(.*?)^```", (tiny.ROOT / "docs/search.md").read_text(), flags=re.M | re.S).group(1)
    ran: dict = {}
    exec(lines, ran)
    assert len(lines.splitlines()) <= 10 and ran["cosines"].shape == (2, 3)
    assert re.fullmatch(r"dog \d 0\.\d+\ncat \d 0\.\d+\n", capsys.readouterr().out.replace("-", ""))
    model = ran["model"]
    assert (model.videos(["two.mp4"]) - ran["videos"][1:2]).abs().max() == 0
    with pytest.raises(UserError, match=r"absent.mp4: "):
        model.videos(["absent.mp4"])
