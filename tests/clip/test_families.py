"""Families of towers: open_clip's embeddings at every cut, and every method trained from the cache as from frames.

MODELS=all pytest tests/clip/test_families.py compares each of open_clip's models with blocks, plain
ViTs too, at full width with two blocks.
"""

import os
from unittest.mock import patch

import do
import open_clip
import pytest
import tiny
import tiny_families
import torch
from safetensors.torch import save_file

from rap import paths
from rap.adapters import registry
from rap.clip import backbone
from rap.clip import families as ours
from rap.clip.tokenizer import tokenize
from rap.clip.towers import INPUT, Context, Tower, Tuner
from rap.errors import UserError
from rap.features.cache import Batch
from rap.params import Variant
from rap.retrieval.loss import info_nce, sigmoid
from rap.retrieval.model import Retriever

tiny_families.register()
BLOCKS = 2  # of a model at full width
WIDE = ("PE-Core-T-16-384", "MobileCLIP-B")  # the others take minutes
OPTIONS = {  # that read the tokens of a frame otherwise than the defaults do
    "asa attention": ("asa", {"asa": {"form": "attention", "top_k": 4}}),
    "asa_gate all": ("asa_gate", {"asa_gate": {"blocks": "all"}}),
    "lorm space": ("lorm", {"lorm": {"decompose": "time_space"}}),
    "lora merge": ("lora", {"merge": {"blocks": [1]}}),
    "projection merge": ("projection", {"merge": {"blocks": [1]}}),
    "lora all": ("lora", {"lora": {"targets": ["qkv", "out", "fc", "proj"]}}),
}
CASES = {name: (name, {}) for name in registry.methods()} | OPTIONS


def pictures(size: int, frames: int = 1, clips: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (clips, frames, size, size, 3), dtype=torch.uint8, generator=generator)


def sentences(config: dict, count: int = 2, free: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of captions of various lengths, the longest a full one, and how many tokens each has.

    `free`: how many places to leave where CLIP's tokenizer may.
    """
    text = config["model"]["text_cfg"]
    words, vocabulary = text["context_length"] - free * (config["tokenizer"]["kind"] == "bpe"), text["vocab_size"]
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(3, min(1000, vocabulary - 1), (count, words), generator=generator)
    end = config["tokenizer"].get("end", "argmax")
    if end == "last":
        return ids, torch.full((count,), words)
    lengths = torch.linspace(words // 2, words, count).long()
    for row, length in zip(ids, lengths, strict=True):
        row[length - 1] = vocabulary - 1 if end == "argmax" else end
        row[length:] = 0
    return ids, lengths


def every_cut(tower: Tower, x: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """The embeddings, and a check that they have the same bits whatever the position of the cut."""
    context = Context(tower, length)
    want = tower.run(x, INPUT, tower.all, context, Tuner())
    for depth in range(tower.layers + 1):
        cut = tower.run(x, INPUT, depth, context, Tuner())
        assert torch.equal(tower.run(cut, depth, tower.all, context, Tuner()), want), depth
    return want


def compare(name: str, layers: int | None = None) -> None:
    theirs, clip, config = tiny_families.pair(name, layers)
    pixels = pictures(config["preprocess"]["size"])
    ids, lengths = sentences(config)
    mean, std = (torch.tensor(config["preprocess"][key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        frames = theirs.encode_image((pixels[0].movedim(-1, 1) / 255 - mean) / std, normalize=False)
        texts = theirs.encode_text(ids, normalize=False)
        found = every_cut(clip.visual, pixels, torch.tensor([1]))[0]
        said = every_cut(clip.text, ids.int(), lengths)
    for one, other in ((found, frames), (said, texts)):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()
    assert (clip.logit_scale, clip.logit_bias) == (theirs.logit_scale, theirs.logit_bias)


@pytest.mark.parametrize("name", tiny_families.MODELS)
def test_embeddings_are_those_of_open_clip_at_every_cut(name):
    compare(name)


@pytest.mark.parametrize("name", tiny_families.MODELS)
def test_weights_for_other_pictures_or_longer_texts_are_refused(name):
    """open_clip would resize them without a word."""
    theirs, _, config = tiny_families.pair(name)
    state = theirs.state_dict()
    for key in [key for key in state if key.endswith(("pos_embed", "positional_embedding"))]:
        longer = state | {key: state[key].repeat_interleave(4, -2)}
        with pytest.raises(UserError, match=rf"^here: not the weights of {name}: \S+embed\w* has .* where the"):
            backbone.build(config, longer, "here")


def wide() -> list[str]:
    if os.environ.get("MODELS") != "all":
        return list(WIDE)
    known = {name: open_clip.get_model_config(name) for name in open_clip.list_models() if not name.startswith("rap-")}
    return [name for name, model in known.items() if ours.can_be_cut(model)]


@pytest.mark.slow
@pytest.mark.parametrize("name", wide())
def test_a_model_at_full_width_has_open_clips_embeddings_at_every_cut(name):
    import timm
    from open_clip.transformer import Transformer

    made = Transformer.__init__

    def short(self, width, layers, *arguments, **options):
        made(self, width, BLOCKS, *arguments, **options)

    def create(name, **options):
        return timm.models.create_model(name, depth=BLOCKS, **options)

    with patch.object(Transformer, "__init__", short), patch("open_clip.timm_model.timm.create_model", create):
        compare(name, BLOCKS)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return tiny.project(tmp_path_factory.mktemp("families"))


@pytest.fixture(scope="module", params=tiny_families.MODELS)
def model(request):
    _, clip, config = tiny_families.pair(request.param)
    return clip, config


def build(settings, clip, name: str, options: dict) -> Retriever:
    """The model of a method, moved off the identity."""
    variants = {"variants": {name: Variant(adapter=name, **options)}, "run": (name,)}
    torch.manual_seed(0)
    adapter = registry.build(clip, settings.model_copy(update=variants), name)
    for weight in adapter.parameters():
        weight.data += 0.1 * torch.randn(weight.shape)
    return Retriever(clip, adapter)


def prefix(tower: Tower, batch: Batch, first_block: float) -> Batch:
    """The batch at the deepest position that a method which begins at `first_block` can start from."""
    stop = int(min(first_block, tower.all))
    with torch.no_grad():
        x = batch.x if stop == INPUT else tower.run(batch.x, INPUT, stop, Context(tower, batch.length), Tuner())
    return Batch(x, batch.length, stop)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_training_from_the_cache_equals_training_from_frames_to_the_bit(settings, model, case):
    clip, config = model
    if case == "coop" and clip.text.words:
        with pytest.raises(UserError, match=f"coop inserts words.* always reads {tiny_families.WORDS}"):
            build(settings, clip, *CASES[case])
        return
    retriever = build(settings, clip, *CASES[case])
    ids, lengths = sentences(config, 4, free=4)
    videos = Batch(pictures(32, 4, 4), torch.tensor([4, 2, 4, 4]), INPUT)
    captions = Batch(ids.int(), lengths, INPUT)
    cached = (
        prefix(clip.visual, videos, retriever.adapter.video.first_block),
        prefix(clip.text, captions, retriever.adapter.text.first_block),
    )
    weights = [weight for weight in retriever.adapter.parameters() if weight.requires_grad]
    loss_of = info_nce if clip.logit_bias is None else sigmoid
    found = []
    for batches in (cached, (videos, captions)):
        loss = loss_of(clip.logits(retriever.similarity(*batches)), torch.eye(4, dtype=torch.bool))
        found.append([loss.detach(), *(torch.autograd.grad(loss, weights, allow_unused=True) if weights else ())])
    for one, other in zip(*found, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)
    pairs = zip(weights, found[0][1:], strict=True)
    assert not [weight.shape for weight, gradient in pairs if gradient is None]


def test_a_selection_by_the_text_is_refused_where_the_head_does_not_read_cls(settings):
    _, clip, _ = tiny_families.pair("rap-siglip")
    for method in ("asa", "rap", "shuffled"):
        with pytest.raises(UserError, match=r"needs a plain ViT, whose head reads .* set query: frame"):
            build(settings, clip, method, {"asa": {"form": "attention", "query": "text", "top_k": 2}})


def test_tokens_are_counted_up_to_the_place_that_the_tower_reads():
    ids = torch.tensor([[5, 9, 2, 0], [63, 2, 2, 0]])
    counts = {"last": [4, 4], "argmax": [2, 1], 2: [3, 2]}
    for end, want in counts.items():
        with patch("rap.clip.tokenizer._of_model", lambda _: lambda captions: ids):
            _, lengths = tokenize(["", ""], {"kind": "open_clip", "name": "any", "end": end}, 4)
        assert lengths.tolist() == want


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rap-coca", "rap-pe-big"])
def test_every_stage_runs_on_a_family(name, tmp_path, monkeypatch):
    """Caches at every position; [CLS] after the words, or pooling of all tokens at the last block."""
    monkeypatch.chdir(tmp_path)
    theirs, clip, _ = tiny_families.pair(name)
    save_file({key: value.contiguous() for key, value in theirs.state_dict().items()}, "weights.safetensors")
    caches = ["video-0", "video-3", "video-all", "text-ids", "text-0", "text-2", "text-all"]
    variants = {method: {"adapter": method, "label": method} for method in ("lorm", "lora", "partial", "none")}
    variants["late"] = {"adapter": "lorm", "label": "late", "lorm": {"sites": ["ln_post"], "text": "none"}}
    if clip.logit_bias is not None:
        variants["late"]["train"] = {"loss": "sigmoid"}
    wanted = {"name": name, "pretrained": None, "weights": "weights.safetensors"}
    settings = tiny.project(tmp_path, backbone=wanted, features={"caches": caches, "max_words": 10}, variants=variants)
    (paths.backbone(name) / "backbone.json").unlink()  # tiny made one of another model
    do.backbone(settings)
    for shard in settings.shards:
        tiny.noise_frames(settings, shard)
    tiny.cache(settings)
    assert "from video-3" in do.train(settings, "late", 0)
    for method in ("lorm", "lora", "partial"):
        assert "from video-0" in do.train(settings, method, 0)
    assert "queries" in do.evaluate(settings, "late", 0)
    if not clip.text.words:
        longer = settings.features.model_copy(update={"max_words": 13})
        with pytest.raises(UserError, match=rf"max_words: 13 is more than the 12 words that {name} reads"):
            do.features(settings.model_copy(update={"features": longer}), "text-0", 0)
