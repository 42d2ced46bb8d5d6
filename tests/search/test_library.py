"""The library: queries by text, by example, several at once; spans that are neighbours; what is chosen for the user."""

import csv
import dataclasses
import json
import math
from io import StringIO
from pathlib import Path

import do
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from PIL import Image
from sealed import damage

from rap import paths
from rap.errors import UserError
from rap.retrieval.pretrained import untrained
from rap.search import library, pictures, serve
from rap.search import query as search
from rap.search.hits import merged
from rap.search.library import Library

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = tiny.project(tmp_path)
    tiny.cache(params)
    return params


def test_every_form_says_the_same(project):
    def say(form):
        return search.run(project, ["a red ball", "a ball"], ["v1"], "zero_shot", 0, None, False, "all", 3, form, None)

    said = json.loads(say("json"))
    assert [one["query"] for one in said["queries"]] == ["a red ball", "a ball", "v1"] and said["searched"] == 8
    flat = [
        (one["query"], str(rank), hit["file"], f"{hit['cosine']:.6f}")
        for one in said["queries"]
        for rank, hit in enumerate(one["hits"], 1)
    ]
    rows = list(csv.DictReader(StringIO(say("csv"))))
    assert [(row["query"], row["rank"], row["file"], f"{float(row['cosine']):.6f}") for row in rows] == flat
    table = say("table")
    places = [table.index(file) for _, _, file, _ in flat[:3]]
    assert places == sorted(places) and all(file in table for _, _, file, _ in flat)


def test_a_video_finds_its_like_and_not_itself(project):
    opened = Library.open(project, "zero_shot")
    embeddings = np.array(opened.index.embeddings)
    for name in ("v2", "v2.mp4", str(opened.folder / "v2.mp4")):
        hits = opened.like(name, top=99)
        order = np.argsort(-embeddings @ embeddings[2], kind="stable")
        assert [hit.id for hit in hits] == [f"v{row}" for row in order if row != 2]
    assert all(hit.split == "test" for hit in opened.like("v2", split="test"))


def test_a_picture_is_a_clip_of_one_frame(project):
    still = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    Image.fromarray(still).save("still.png")
    model = untrained(project, "zero_shot")
    batch = pictures.batch("still.png", model.recipe)
    assert (batch.x[0, 0].numpy() == still).all() and batch.length.tolist() == [1]
    with torch.no_grad():
        mine = model.model.video(batch)[0].numpy()
    opened = Library.open(project, "zero_shot")
    wanted = np.sort(np.array(opened.index.embeddings) @ mine)[::-1][:3]
    assert [hit.cosine for hit in opened.like("still.png", top=3)] == pytest.approx(wanted.tolist(), abs=1e-5)
    # A clip whose every frame is this picture has the same embedding: zero-shot CLIP takes the mean of its frames.
    batch.x[0, :] = batch.x[0, 0].clone()
    with torch.no_grad():
        whole = model.model.video(type(batch)(batch.x, torch.tensor([4]), batch.position))[0].numpy()
    assert whole == pytest.approx(mine, abs=1e-5)


@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_a_picture_is_scaled_as_the_frames_of_videos_are(project, mode):
    """A picture twice as wide as high, black in its outer quarters: cropped away, or squashed."""
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, 32:96] = 255
    Image.fromarray(wide).save("wide.png")
    recipe = dataclasses.replace(untrained(project, "zero_shot").recipe, mode=mode)
    row = pictures.batch("wide.png", recipe).x[0, 0, 16, :, 0].numpy()
    assert row[2] == (255 if mode == "shortest" else 0) and row[16] == 255


def test_without_a_variant_rap_answers_if_it_is_trained_and_else_zero_shot(project):
    project = project.model_copy(update={"run": ("zero_shot", "lorm", "rap")})
    untold = Library.open(project)
    assert untold.variant == "zero_shot" and untold.note == "rap is not trained yet, so zero-shot CLIP searched"
    do.train(project, "rap", 0)
    trained = Library.open(project)
    assert trained.variant == "rap" and trained.note == ""
    assert not np.array_equal(trained.index.embeddings, untold.index.embeddings)


@pytest.mark.parametrize("form", search.FORMS)
def test_every_form_says_that_a_later_variant_is_missing(project, capsys, form):
    project = project.model_copy(update={"run": ("zero_shot", "rap")})
    said = search.run(project, ["a ball"], [], None, 0, None, False, "all", 3, form, None)
    line = "rap is not trained yet, so zero-shot CLIP searched"
    assert (line in said) == (form != "csv") and (line in capsys.readouterr().err) == (form != "table")
    if form == "json":
        assert json.loads(said)["note"] == line
    search.run(project, ["a ball"], [], "zero_shot", 0, None, False, "all", 3, form, None)
    assert "searched" not in capsys.readouterr().err


def test_the_last_trained_variant_of_run_answers_and_a_line_says_that_a_later_one_is_missing(project):
    project = project.model_copy(update={"run": ("zero_shot", "lorm", "rap")})
    do.train(project, "lorm", 0)
    found = Library.open(project)
    assert found.variant == "lorm" and found.note == "rap is not trained yet, so lorm searched"
    only = project.model_copy(update={"run": ("zero_shot", "lorm")})
    assert Library.open(only).variant == "lorm" and Library.open(only).note == ""
    none = Library.open(project.model_copy(update={"run": ("zero_shot",)}))
    assert none.variant == "zero_shot" and none.note == ""


def test_a_damaged_adapter_is_left_aside_with_a_line(project):
    project = project.model_copy(update={"run": ("zero_shot", "lorm", "rap")})
    for name in ("lorm", "rap"):
        do.train(project, name, 0)
    damage(paths.run("lorm", 0).adapter)
    assert Library.open(project).variant == "rap" and Library.open(project).note == ""
    damage(paths.run("rap", 0).adapter)
    assert Library.open(project).note == "rap is damaged, so zero-shot CLIP searched"
    alone = project.model_copy(update={"run": ("rap",), "variants": {"rap": project.variants["rap"]}})
    with pytest.raises(UserError, match=r"search: rap is damaged, and params\.yaml has no variant"):
        Library.open(alone)


def test_a_rap_of_another_project_is_left_aside_with_a_line(project, monkeypatch):
    """After `make demo`, the same folder serves for other videos: with another backbone, or other frames."""
    project = project.model_copy(update={"run": ("zero_shot", "rap")})
    do.train(project, "rap", 0)
    other = project.model_copy(update={"frames": project.frames.model_copy(update={"sampler": "fps"})})
    assert Library.open(other).note == "rap is trained on other frames, so zero-shot CLIP searched"
    assert "rap" in serve.usable(project, "zero_shot", 0) and "rap" not in serve.usable(other, "zero_shot", 0)
    monkeypatch.setattr(library, "read_config", lambda folder: {"digest": "another"})
    assert Library.open(project).note == "rap is trained on another backbone, so zero-shot CLIP searched"


def spans(*rows: tuple[str, float, float]) -> pd.DataFrame:
    return pd.DataFrame(
        [(f"{path}@{start}", path, "test", start, end) for path, start, end in rows],
        columns=["video_id", "path", "split", "start", "end"],
    )


def found(videos, cosines, top, usable=None) -> list[tuple]:
    chosen = np.ones(len(videos), bool) if usable is None else usable
    hits = merged(videos, np.array(cosines, np.float32), chosen, top, Path("in"))
    return [(hit.file, hit.start, hit.end, round(hit.cosine, 3)) for hit in hits]


def test_neighbouring_spans_are_one_hit_as_wide_as_what_is_good():
    videos = spans(*(("in.mp4", 10.0 * n, 10.0 * n + 10) for n in range(6)), ("other.mp4", 0.0, 10.0))
    cosines = [0.1, 0.8, 0.9, 0.7, 0.2, 0.5, 0.6]
    assert found(videos, cosines, 5) == [
        ("in/in.mp4", 10, 40, 0.9),
        ("in/other.mp4", 0, 10, 0.6),
        ("in/in.mp4", 50, 60, 0.5),
    ]
    # With one row more, the span at 40 s closes the gap between two hits.
    assert found(videos, cosines, 6) == [("in/in.mp4", 10, 60, 0.9), ("in/other.mp4", 0, 10, 0.6)]
    assert found(videos, cosines, 2) == [("in/in.mp4", 10, 30, 0.9)]
    assert found(videos, cosines, 1, np.arange(7) != 2) == [("in/in.mp4", 10, 20, 0.8)]


def test_whole_videos_and_other_files_are_never_merged():
    videos = spans(("a.mp4", math.nan, math.nan), ("b.mp4", math.nan, math.nan), ("b.mp4", 3.0, math.nan))
    assert found(videos, [0.3, 0.2, 0.1], 9) == [
        ("in/a.mp4", None, None, 0.3),
        ("in/b.mp4", None, None, 0.2),
        ("in/b.mp4", 3.0, None, 0.1),
    ]


def test_hits_are_the_components_of_the_best_rows():
    """Against a second way, for many random galleries: sort the rows by file and start, then join what touches."""
    random = np.random.default_rng(0)
    videos = spans(*((f"{n % 4}.mp4", 5.0 * (n // 4), 5.0 * (n // 4) + 5) for n in range(40)))
    for _ in range(50):
        cosines, top = random.permutation(40) / 40, int(random.integers(1, 30))
        hits = found(videos, cosines, top)
        assert {hit[:3] for hit in hits} == components(videos, np.argsort(-cosines)[:top])
        assert [hit[3] for hit in hits] == sorted((hit[3] for hit in hits), reverse=True)


def components(videos: pd.DataFrame, rows) -> set[tuple]:
    result: list[list] = []
    for row in videos.iloc[sorted(rows, key=lambda row: (videos.path[row], videos.start[row]))].itertuples():
        if result and result[-1][0] == f"in/{row.path}" and result[-1][2] == row.start:
            result[-1][2] = row.end
        else:
            result.append([f"in/{row.path}", row.start, row.end])
    return {tuple(one) for one in result}


def test_the_library_of_the_documentation_runs(project, capsys):
    exec(library.__doc__.split("\n\n", 1)[1], {})
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert paths.index(project.dataset.name, "x").parent.is_dir()
