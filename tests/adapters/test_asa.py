"""ASA: where its heads look, and which patches it selects."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from rap.adapters import asa, lorm, rap
from rap.adapters.base import Adapter
from rap.clip.backbone import build
from rap.clip.models import open_clip_config
from rap.clip.plain import Plain
from rap.clip.tokenizer import tokenize
from rap.clip.towers import Context, Tuner
from rap.demo.captions import name
from rap.demo.draw import paint, still
from rap.demo.pretrain import FOLDER
from rap.demo.stills import SIZE
from rap.demo.things import BACKGROUNDS, draw_thing, pick
from rap.features.cache import Batch
from rap.files import read_json
from rap.retrieval.model import Retriever

GRID, T, R = 3, 4, 4


def one_head(form, delta, gamma):
    """A correlation with one head that looks sharply at its offset and copies what it finds."""
    options = asa.Options(form=form, offsets=(delta,), rank=R)
    tower = SimpleNamespace(width=8, grid=GRID, class_tokens=1)
    made = asa.FORMS[form](tower, T, options)
    made.value.weight.data = torch.eye(R)
    made.gamma.data = torch.tensor([gamma])
    if form == "attention":
        made.query.weight.data.zero_()
        made.sharp.data.fill_(math.log(50))
        made.near.data.fill_(math.log(50))
        made.apart.data.fill_(-200)
    return made


@pytest.mark.parametrize("form", asa.FORMS)
@pytest.mark.parametrize(("delta", "gamma"), [(1.0, (0.0, 0.0)), (-1.0, (1.0, 0.0)), (0.0, (0.0, -1.0))])
def test_a_head_finds_the_token_at_its_offset(form, delta, gamma):
    """delta frames later, gamma[0] patches to the right and gamma[1] patches down; [CLS] finds a [CLS]."""
    h = torch.randn(2, T, GRID**2 + 1, R, generator=torch.Generator().manual_seed(0))
    found = one_head(form, delta, gamma).found(h, None, torch.tensor([T, T]))
    right, down = int(gamma[0]), int(gamma[1])
    patches, seen = h[:, :, 1:].unflatten(2, (GRID, GRID)), found[:, :, 1:].unflatten(2, (GRID, GRID))
    t, y, x = 1, 1, 1
    expected = patches[:, t + int(delta), y + down, x + right]
    torch.testing.assert_close(seen[:, t, y, x], expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(found[:, t, 0], h[:, t + int(delta), 0], rtol=0, atol=1e-3)


@pytest.mark.parametrize("form", asa.FORMS)
def test_an_offset_spans_the_same_share_of_a_clip_with_fewer_frames(form):
    """In a clip of two frames at the rate of four, an offset of two frames is an offset of one."""
    h = torch.randn(1, T, GRID**2 + 1, R, generator=torch.Generator().manual_seed(0))
    found = one_head(form, 2.0, (0.0, 0.0)).found(h, None, torch.tensor([2]))
    torch.testing.assert_close(found[:, 0, 5], h[:, 1, 5], rtol=0, atol=1e-3)


def test_heads_start_at_offsets_that_differ():
    assert len(set(asa.Options().offsets)) == len(asa.Options().offsets) > 1


@pytest.fixture(scope="module")
def demo():
    """The demo's CLIP."""
    return build(read_json(FOLDER / "demo-vit.json"), load_file(FOLDER / "demo-vit.safetensors"), "the demo")


def stills(count):
    """Frames [count, 1, SIZE, SIZE, 3] of one thing each, the share of each patch that it covers, and the things."""
    rng = np.random.default_rng(0)
    pictures, masks, things = [], [], []
    for _ in range(count):
        background, thing, seed = pick(rng, BACKGROUNDS), draw_thing(rng), int(rng.integers(1 << 30))
        with_thing = still(background, [thing], np.random.default_rng(seed))
        masks.append(np.abs(with_thing.astype(int) - paint(background, [], 1)[0]).sum(-1) > 90)
        pictures.append(with_thing)
        things.append(thing)
    large = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()
    small = F.interpolate(large, size=SIZE, mode="bicubic", antialias=True).clamp(0, 255).round().to(torch.uint8)
    covered = F.adaptive_avg_pool2d(torch.from_numpy(np.stack(masks)).float()[:, None], 4).flatten(1)
    return small.permute(0, 2, 3, 1)[:, None], covered, things


@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize("query", ["frame", "text"])
def test_selected_patches_lie_on_the_thing_more_than_twice_as_often_as_chance(demo, query, layer):
    pixels, covered, things = stills(200)
    tuner = asa.ASA(demo.visual, 1, asa.Options(form="attention", blocks=(layer,), top_k=4, query=query))
    text = named(demo, things)[:, None] if query == "text" else None
    context = Context(demo.visual, torch.ones(len(pixels), dtype=torch.long), text)
    with torch.no_grad():
        tokens = demo.visual.run(pixels, -1, layer, context, Tuner())
    index = tuner.select(layer, tokens, context)[:, 0]
    on, chance = covered.gather(1, index).mean(), covered.mean()
    assert on > 2 * chance, f"{on:.3f} of the selected patches, {chance:.3f} of all"


def named(demo, things):
    """Embeddings [things, E] of the captions of single things, normalised."""
    config = read_json(FOLDER / "demo-vit.json")
    ids, lengths = tokenize([name(thing) for thing in things], config["tokenizer"], 32)
    batch = Batch(torch.from_numpy(ids), torch.from_numpy(lengths), -1)
    with torch.no_grad():
        return Retriever(demo, Adapter()).text(batch)


def test_rap_has_the_size_that_the_paper_reports_on_vit_b_32():
    """About 1.06 M, with 12 frames: LoRM of rank 8 in all blocks, ASA of rank 64 in the upper eight."""
    with torch.device("meta"):
        clip = Plain(open_clip_config("ViT-B-32", None))
        made = rap.build(clip, 12, lorm.Options(rank=8), asa.Options(rank=64, blocks=tuple(range(4, 12))))
    assert made.count == 1_033_760 < 1.06e6
