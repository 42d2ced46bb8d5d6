"""The report: one file that holds what the tables say, needs no network, and lets no name become code."""

import re
from base64 import b64decode, b64encode
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import do
import numpy as np
import pandas as pd
import pytest
import tiny
from browser import shown
from PIL import Image

from rap import paths
from rap.data.manifest import Manifest
from rap.errors import UserError
from rap.jobs import Job
from rap.paths import FIGURES, LATEX, REPORT
from rap.report.page import gallery, latex, looks, stage

pytestmark = pytest.mark.slow

RUN = ("zero_shot", "lorm", "rap")
EVIL = "<img src=x onerror=alert(1)> & 100 %"
EVIL_CAPTION = """ "'></h3><script>alert(1)</script>{{ 7 * 7 }}"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with two tables' runs finished; the label of LoRM and all captions are hostile."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setattr("rap.report.tracking.log", lambda params, folders: None)
        patch.setattr(tiny, "manifest", hostile(tiny.manifest))
        params = tiny.project(folder)
        lorm = params.variants["lorm"].model_copy(update={"label": EVIL})
        params = params.model_copy(update={"run": RUN, "seeds": (0, 1), "variants": {**params.variants, "lorm": lorm}})
        tiny.cache(params)
        for variant in RUN:
            for seed in params.seeds:
                do.train(params, variant, seed)
                do.evaluate(params, variant, seed)
        do.table(params, "table1")
        do.report(params)
        yield params


def hostile(manifest):
    """The function `manifest`, with captions that end in code."""

    def made(*arguments):
        found = manifest(*arguments)
        captions = found.captions.assign(caption=found.captions.caption + EVIL_CAPTION)
        return Manifest.build(found.videos.to_dict("records"), captions.to_dict("records"))

    return made


class Page(HTMLParser):
    """The tags with their attributes, the text of table cells, and that of heads of the third level."""

    def __init__(self):
        super().__init__()
        self.tags, self.rows, self.titles, self.stack = [], [], [], []
        self.feed(REPORT.read_text())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.stack.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag == "td" or (tag, dict(attributes).get("scope")) == ("th", "row"):
            self.rows[-1].append("")
        if tag == "h3":
            self.titles.append("")

    def handle_endtag(self, tag):
        while self.stack and self.stack.pop() != tag:
            pass

    def handle_data(self, text):
        if "tbody" in self.stack and {"td", "th"} & {*self.stack} and "small" not in self.stack:
            self.rows[-1][-1] += text
        if "h3" in self.stack:
            self.titles[-1] += text


def test_the_page_says_what_the_table_says(project):
    rows, shown = pd.read_csv(paths.table("table1").csv), [row for row in Page().rows if row]
    assert [row[0] for row in shown] == rows.label.tolist()
    assert [row[2] for row in shown] == [f"{mean:.1f}" for mean in rows["t2v_R@1_mean"]]
    assert shown[rows.variant.tolist().index("rap")][-1] == "baseline"


def test_the_page_needs_no_network_and_a_label_or_a_caption_stays_text(project):
    page = Page()
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href", "xlink:href"):
            assert re.match(r"#|data:", attributes.get(name) or "#"), attributes[name][:80]
    assert sum(tag == "script" for tag, _ in page.tags) == 1 and not any(tag == "link" for tag, _ in page.tags)
    assert "@import" not in REPORT.read_text() and EVIL in [row[0] for row in page.rows if row]
    shown = [f"“{example['caption']}”" for example in gallery.examples(project, "rap")]
    assert shown == [title for title in page.titles if title.startswith("“")]
    assert all(title.endswith(f"{EVIL_CAPTION}”") for title in shown)


def test_rows_have_heads_and_pictures_say_their_videos(project):
    page = Page()
    heads = [attributes for tag, attributes in page.tags if tag == "th" and attributes.get("scope") == "row"]
    assert [head["data-value"] for head in heads] == pd.read_csv(paths.table("table1").csv).label.tolist()
    expected = []
    for query in gallery.examples(project, "rap"):
        clips = [(hit["video"], hit["own"]) for hit in query["hits"]]
        clips += [(query["video"], True)] if query["own"] else []
        expected += [f"Frames of {video}{', the wanted clip' if own else ''}" for video, own in clips]
    assert [attributes["alt"] for tag, attributes in page.tags if tag == "img"] == expected


def test_training_videos_that_are_val_are_named_on_the_page_and_in_latex(project, monkeypatch):
    REPORT.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(stage, "held_out", lambda params: 7)
        do.report(project)
    sentence = "Not trained on: 7 training videos, held out as val"
    said = [file for file in (REPORT, LATEX / "table1.tex") if sentence in file.read_text()]
    REPORT.unlink()
    do.report(project)
    assert said == [REPORT, LATEX / "table1.tex"] and sentence not in REPORT.read_text()


def test_every_picture_decodes_and_the_ids_of_the_figures_do_not_clash(project):
    page = Page()
    pictures = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) >= 3
    for source in pictures:
        Image.open(BytesIO(b64decode(source.partition(",")[2]))).verify()
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) and sum(tag == "svg" for tag, _ in page.tags) == 6


@pytest.mark.parametrize(
    "file",
    ["runs/rap/seed-0/similarity.npy", "runs/rap/seed-0/ranks.parquet", "runs/lorm/seed-1/history.csv", "table1.csv"],
)
def test_the_page_is_not_made_from_a_damaged_file(project, file):
    path = Path("results", file)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    REPORT.unlink()
    try:
        with pytest.raises(UserError, match=f"{file}: damaged; run `rap "):
            do.report(project)
    finally:
        path.write_bytes(whole)
        do.report(project)


def test_the_wanted_clip_stands_where_the_ranks_say(project):
    examples = gallery.examples(project, "rap")
    manifest = Manifest.read(paths.manifest(project.dataset.name))
    ranks = pd.read_parquet(paths.run("rap", 0) / "ranks.parquet")
    assert {example["right"] for example in examples} <= {True, False} and examples
    for example in examples:
        id = manifest.captions.set_index("caption").caption_id[example["caption"]]
        above = ranks[(ranks.direction == "t2v") & (ranks.id == id)].above.item()
        assert example["rank"] == above + 1 and example["right"] == (above == 0)
        assert [hit["own"] for hit in example["hits"]] == [place == above for place in range(gallery.WIDTH)]
        assert (example["own"] is None) == (above < gallery.WIDTH)


def test_a_test_video_without_captions_is_a_column_and_moves_no_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = tiny.project(tmp_path, videos=16).model_copy(update={"run": ("lorm",), "seeds": (0,)})
    manifest = Manifest.read(paths.manifest(params.dataset.name))
    silent = manifest.split("test").videos.video_id.iloc[0]
    captions = manifest.captions[manifest.captions.video_id != silent].to_dict("records")
    job = Job(params, "download", {})
    Manifest.build(manifest.videos.to_dict("records"), captions).write(paths.manifest(params.dataset.name), job.result)
    for shard in params.shards:
        tiny.noise_frames(params, shard)
    tiny.cache(params)
    do.train(params, "lorm", 0)
    do.evaluate(params, "lorm", 0)
    for example in gallery.examples(params, "lorm"):
        place = example["rank"] - 1
        assert [hit["own"] for hit in example["hits"]] == [n == place for n in range(gallery.WIDTH)]


def test_the_smallest_run_has_a_page(tmp_path, monkeypatch):
    """One variant without training, one seed: no deviation, no losses, nothing learnt."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rap.report.tracking.log", lambda params, folders: None)
    params = tiny.project(tmp_path).model_copy(update={"run": ("zero_shot",), "seeds": (0,)})
    tiny.cache(params)
    do.train(params, "zero_shot", 0)
    do.evaluate(params, "zero_shot", 0)
    do.table(params, "table1")
    assert "1 tables" in do.report(params)
    assert {file.name for file in FIGURES.iterdir()} == {"accuracy.svg", "twins.svg"}
    assert not re.search(r"\bnan\b", REPORT.read_text())


def test_a_missing_or_damaged_figure_is_made_again_with_the_same_bytes(project):
    files = [*FIGURES.iterdir(), *LATEX.iterdir()]
    before = {file: file.read_bytes() for file in files}
    assert {file.name for file in files} >= {"accuracy.svg", "losses.svg", "modulation.svg", "table1.tex"}
    assert "up to date" in do.report(project)
    (FIGURES / "accuracy.svg").unlink()
    (LATEX / "table1.tex").write_text("nothing")
    assert "up to date" not in do.report(project)
    assert {file: file.read_bytes() for file in files} == before


def test_asa_changes_no_patch_before_training_and_some_after(project):
    clip = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    model = looks._model(project, "rap", 0)
    asa = looks._find(model.adapter.video, looks.ASA)
    changes = looks._changes(model, asa, 2, clip)
    assert changes.shape == (4, 16) and (changes > 0).all()
    for part in asa.correlations.values():
        part.up.weight.data.zero_()
        part.up.bias.data.zero_()
    assert (looks._changes(model, asa, 2, clip) == 0).all()


def test_what_was_learnt_is_that_of_the_last_variant_with_the_part(project):
    others = project.model_copy(update={"run": ("rap", "lorm", "zero_shot")})
    assert looks.modulation(others).get_suptitle() == EVIL
    assert looks.where_asa_writes(others).get_suptitle() == project.variants["rap"].label
    assert looks.where_asa_writes(project.model_copy(update={"run": ("zero_shot", "lorm")})) is None


def test_latex_has_every_special_letter_escaped():
    assert latex.escape(r"a_b 5% {x} & #1 $ ~ ^ \y") == (
        r"a\_b 5\% \{x\} \& \#1 \$ \textasciitilde{} \textasciicircum{} \textbackslash{}y"
    )


def test_in_a_browser_nothing_fails_sorting_and_filters_work(project, tmp_path):
    act = """<script>
    const heads = document.querySelectorAll("th button"), first = () => document.querySelector("tbody").rows[0];
    heads[2].click(); const best = first().cells[2].dataset.value;
    heads[2].click(); const least = first().cells[2].dataset.value;
    const cards = () => [...document.querySelectorAll("article")].filter(card => !card.hidden);
    kind.value = "move"; kind.onchange();
    const kinds = [...new Set(cards().map(card => card.dataset.kind))];
    kind.value = ""; right.value = "False"; right.onchange();
    const seen = cards().map(card => card.dataset.right);
    const whole = [...document.images].every(image => image.complete && image.naturalWidth > 0);
    document.title = JSON.stringify([+best, +least, kinds, [...new Set(seen)], whole]);
    </script>"""
    page = tmp_path / "page.html"
    page.write_text(
        REPORT.read_text().replace('loading="lazy" decoding="async" ', "").replace("</html>", f"{act}</html>")
    )
    after, said = shown(page.as_uri())
    rows = pd.read_csv(Path(paths.table("table1").csv))["t2v_R@1_mean"]
    title = re.search(r"<title>(.*?)</title>", after)[1]
    assert title == f'[{rows.max():g},{rows.min():g},["move"],["False"],true]'
    assert not said


def test_in_a_browser_the_page_fits_a_phone_and_follows_the_theme(project, tmp_path):
    look = """<script>
    const page = document.createElement("iframe"), told = [];
    page.style.cssText = "width: 390px; height: 800px; border: 0";
    page.srcdoc = atob(document.querySelector("template").dataset.page);
    page.onload = () => {
      const inside = page.contentDocument, wide = inside.querySelector("figure svg").getBoundingClientRect().width;
      const named = [...inside.querySelectorAll("svg[role=img]")].every(one => one.getAttribute("aria-label"));
      const paper = page.contentWindow.getComputedStyle(inside.body).backgroundColor;
      document.title = JSON.stringify([inside.documentElement.scrollWidth <= 390, wide > 600, named, paper]);
    };
    document.body.append(page);
    </script>"""
    page, text = tmp_path / "phone.html", b64encode(REPORT.read_bytes()).decode()
    page.write_text(f'<title>-</title><body><template data-page="{text}"></template>{look}')
    for dark, paper in ((0, "rgb(22, 24, 29)"), (1, "rgb(255, 255, 255)")):  # as Chromium numbers the themes
        after, _ = shown(page.as_uri(), f"--blink-settings=preferredColorScheme={dark}")
        assert re.search(r"<title>(.*?)</title>", after)[1] == f'[true,true,true,"{paper}"]'
