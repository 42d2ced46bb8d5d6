"""The towers equal open_clip's model, also when they stop and resume at any depth."""

import open_clip
import pytest
import tiny
import torch

from rap.clip import backbone, models
from rap.clip.tokenizer import tokenize
from rap.clip.towers import INPUT, Context, Tuner

CAPTIONS = ["a dog jumps", "two cats run along a very long red wall of bricks, don't they?", ""]


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("ViT-B-16", "ViT-B-32-quickgelu")]


@pytest.fixture(scope="module", params=["ViT-B-32", *OTHERS])
def pair(request):
    """open_clip's model with random weights, and our Clip with the same weights."""
    torch.manual_seed(0)
    theirs = open_clip.create_model(request.param).eval()
    return theirs, backbone.build(models.open_clip_config(request.param, None), theirs.state_dict(), "open_clip")


def test_video_tower_equals_encode_image_at_every_cut(pair):
    theirs, ours = pair
    frames = torch.randint(0, 256, (1, 2, 224, 224, 3), dtype=torch.uint8)
    images = frames[0].movedim(-1, 1).float().div(255).sub(ours.visual.mean).div(ours.visual.std)
    context = Context(ours.visual, torch.tensor([2]))
    want = ours.visual.run(frames, INPUT, ours.visual.all, context, Tuner())
    torch.testing.assert_close(want, theirs.encode_image(images)[None], rtol=0, atol=2e-6)
    for depth in (0, 1, 7, ours.visual.layers):
        cut = ours.visual.run(frames, INPUT, depth, context, Tuner())
        assert torch.equal(ours.visual.run(cut, depth, ours.visual.all, context, Tuner()), want), depth


def test_text_tower_equals_encode_text_at_every_cut(pair):
    theirs, ours = pair
    ids = open_clip.tokenize(CAPTIONS)
    context = Context(ours.text, ids.argmax(-1) + 1)
    want = ours.text.run(ids, INPUT, ours.text.all, context, Tuner())
    torch.testing.assert_close(want, theirs.encode_text(ids), rtol=0, atol=2e-6)
    for depth in (0, 1, 7, ours.text.layers):
        cut = ours.text.run(ids, INPUT, depth, context, Tuner())
        assert torch.equal(ours.text.run(cut, depth, ours.text.all, context, Tuner()), want), depth


def test_shorter_padding_gives_the_same_text_embedding(pair):
    _, ours = pair
    long, lengths = tokenize(CAPTIONS, {"kind": "bpe"}, 77)
    context = Context(ours.text, torch.from_numpy(lengths))
    whole, short = (
        ours.text.run(torch.from_numpy(long[:, :words]), INPUT, ours.text.all, context, Tuner()) for words in (77, 20)
    )
    torch.testing.assert_close(whole, short, rtol=0, atol=1e-5)


@pytest.mark.parametrize("words", [77, 8])
def test_bpe_ids_are_open_clips(words):
    ids, lengths = tokenize(CAPTIONS, {"kind": "bpe"}, words)
    want = open_clip.tokenize(CAPTIONS, context_length=words)
    assert (torch.from_numpy(ids) == want).all()
    assert lengths.tolist() == (want.argmax(-1) + 1).tolist()


def test_words_are_numbered_and_unknown_ones_marked():
    ids, lengths = tokenize(["A red zebra jumps!"], tiny.CONFIG["tokenizer"], 8)
    words = [tiny.WORDS[id] for id in ids[0]]
    assert words == ["<start>", "a", "red", "<unknown>", "jumps", "<end>", "<pad>", "<pad>"]
    assert lengths.tolist() == [6]
