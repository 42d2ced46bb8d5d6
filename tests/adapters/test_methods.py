"""Properties of every registered method: identity at step 0, exact training from the cache, parameter count."""

import re

import pytest
import tiny
import torch
import yaml
from safetensors.torch import load_file, save_file

from rap.adapters import registry
from rap.adapters.merge import merged
from rap.clip.towers import Context
from rap.errors import UserError
from rap.features.cache import FRAMES, Cache, choose
from rap.params import Variant
from rap.retrieval.loss import info_nce
from rap.retrieval.model import Retriever

T, D, W, L, TEXT_L, N, E = 4, 24, 16, 3, 2, 16, 16  # the tiny backbone: frames, widths, blocks, patches, joint space
TEXT = 2 * W * TEXT_L  # parameters of the text tower's scale and shift
ASA = 2 * 16 * D + 2 * 16**2 + 2 * 16 + D + 3 * 4  # of one block
COUNTS = {
    "none": 0,
    "full": sum(p.numel() for p in tiny.clip().parameters()) - 1,
    "lora": 8 * (L * ((D + 3 * D) + 2 * D) + TEXT_L * ((W + 3 * W) + 2 * W)),
    "ssf": 22 * (L * D + TEXT_L * W),
    "lorm": (L + 1) * 2 * 8 * (T + D) + TEXT,
    "bias": L * 11 * D + 2 * D + TEXT_L * 11 * W + W,
    "projection": D * E + W * E,
    "partial": 12 * (D**2 + W**2) + 13 * (D + W),
    "bottleneck": 2 * (L * (2 * D * 16 + D + 16) + TEXT_L * (2 * W * 16 + W + 16)),
    "vpt": L * 8 * D,
    "coop": 4 * W,
    "vop": L * T * 4 * D + TEXT_L * 4 * W,
    "st_adapter": L * (2 * D * 16 + D + 16 + 16 * 4) + TEXT,
    "asa": 2 * ASA + TEXT,
    "asa_gate": 2 * (3 * (D + 1) + 3 + 3 * (2 * T - 1)) + TEXT,
    "rap": (L + 1) * 2 * 8 * (T + D) + 2 * ASA + TEXT,
}
COUNTS |= {"shuffled": COUNTS["rap"], "window": 0, "static": T}
COUNTS["sequential"] = COUNTS["full"] + 12 * E**2 + 13 * E + T * E
OPTIONS = [  # options that change the arithmetic; each must keep the properties of the defaults
    ("lorm", {"lorm": {"decompose": "time_space"}}),
    ("lorm", {"lorm": {"decompose": "time_layer", "sites": ["ln_1", "ln_2"]}}),
    ("lorm", {"lorm": {"decompose": "time_layer"}}),
    ("lorm", {"lorm": {"sites": ["ln_post"]}}),
    ("lorm", {"lorm": {"time": "content"}}),
    ("lorm", {"lorm": {"time": "content", "decompose": "time_layer", "sites": ["ln_1", "ln_post"]}}),
    ("lorm", {"lorm": {"basis": "random", "blocks": [-1], "text": "none"}}),
    ("asa", {"asa": {"form": "attention"}}),
    ("asa", {"asa": {"form": "attention", "top_k": 4, "blocks": "all", "local": False}}),
    ("asa", {"asa": {"offsets": [0, 1], "rank": 4}}),
    ("asa", {"asa": {"form": "attention", "query": "text", "top_k": 2, "blocks": [1], "text": "none"}}),
    ("asa_gate", {"asa_gate": {"position": "embedding", "blocks": "all"}}),
    ("asa_gate", {"asa_gate": {"position": "none", "patch_offset": False, "time_offset": False}}),
    ("asa_gate", {"asa_gate": {"query": "text", "blocks": [1], "text": "none"}}),
    ("lora", {"lora": {"targets": ["qkv", "out", "fc", "proj"]}}),
    ("rap", {"lorm": {"blocks": [1, 2]}, "asa": {"form": "attention", "query": "text", "top_k": 2}}),
    ("bottleneck", {"bottleneck": {"sites": ["proj"], "width": 4}}),
    ("partial", {"partial": {"blocks": 2}}),
    ("sequential", {"sequential": {"tune": "none", "head": "lstm"}}),
    ("sequential", {"sequential": {"tune": "none", "layers": 2}}),
    ("st_adapter", {"st_adapter": {"reach": 2, "blocks": [-1]}}),
    ("window", {"window": {"last": 2}}),
    ("lora", {"merge": {"blocks": [1, 2]}}),
    ("rap", {"asa": {"form": "attention", "query": "text", "top_k": 2}, "merge": {"blocks": [2]}}),
]
OPTIONS += [(name, {"merge": {"blocks": [1]}}) for name in registry.methods()]
CASES = [(name, {}) for name in registry.methods()] + OPTIONS
PROMISED = [(name, own) for name, own in CASES if registry.methods()[name].identity and "merge" not in own]
BLIND = ("none", "full", "bias", "projection", "partial", "bottleneck", "vpt", "coop", "lora", "ssf")  # to time


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A tiny project with all caches, computed by the features stage."""
    folder = tmp_path_factory.mktemp("methods")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        settings = tiny.project(folder)
        tiny.cache(settings)
        yield settings


def make(settings, name, options, perturb=0.0):
    """The model of a method; noise of size `perturb` moves its adapter off the identity."""
    settings = settings.model_copy(update={"variants": {name: Variant(adapter=name, **options)}, "run": (name,)})
    clip = tiny.clip()
    torch.manual_seed(0)
    adapter = registry.build(clip, settings, name)
    for weight in adapter.parameters():
        weight.data += perturb * torch.randn(weight.shape)
    return clip, Retriever(clip, adapter)


def losses(settings, model, clip, video, text):
    videos = [f"v{i}" for i in range(8)]
    clips = Cache(settings, video, clip.visual).batch(videos)
    captions = Cache(settings, text, clip.text).batch([f"{id}#1" for id in videos])
    loss = info_nce(clip.logits(model.similarity(clips, captions)), torch.eye(8, dtype=torch.bool))
    weights = [p for p in model.adapter.parameters() if p.requires_grad]
    return loss, torch.autograd.grad(loss, weights, allow_unused=True) if weights else ()


@pytest.mark.parametrize(("name", "options"), CASES)
def test_training_from_the_cache_equals_training_from_frames_to_the_bit(project, name, options):
    clip, model = make(project, name, options, perturb=0.1)
    video = choose(project, "video", clip.visual, model.adapter.video.first_block)
    text = choose(project, "text", clip.text, model.adapter.text.first_block)
    cached, cached_gradients = losses(project, model, clip, video, text)
    plain, gradients = losses(project, model, clip, FRAMES, "text-ids")
    assert torch.equal(cached, plain)
    for a, b in zip(cached_gradients, gradients, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)
    assert not gradients or any(g is not None and g.abs().max() > 0 for g in gradients)


@pytest.mark.parametrize(("name", "options"), PROMISED)
def test_a_method_registered_as_identity_is_the_identity_at_step_0(project, name, options):
    clip, model = make(project, name, options)
    _, zero_shot = make(project, "none", {})
    videos = [f"v{i}" for i in range(8)]
    clips = Cache(project, FRAMES, clip.visual).batch(videos)
    captions = Cache(project, "text-ids", clip.text).batch([f"{id}#0" for id in videos])
    torch.testing.assert_close(
        model.similarity(clips, captions), zero_shot.similarity(clips, captions), rtol=0, atol=2e-6
    )


@pytest.mark.parametrize("name", registry.methods())
def test_parameter_count_is_the_closed_form(project, name):
    assert make(project, name, {})[1].adapter.count == COUNTS[name]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_parameter_learns(project, name, options):
    """Off the identity, each trainable tensor has a gradient, so every one has an effect."""
    clip, model = make(project, name, options, perturb=0.1)
    _, gradients = losses(project, model, clip, FRAMES, "text-ids")
    names = [key for key, p in model.adapter.named_parameters() if p.requires_grad]
    dead = [key for key, g in zip(names, gradients, strict=True) if g is None or not g.abs().max() > 0]
    assert not dead


@pytest.mark.parametrize(("name", "options"), [case for case in CASES if "text" not in str(case[1])])
def test_padded_frames_change_nothing(project, name, options):
    """v5 has two valid frames: its embedding does not depend on the pixels in its padding."""
    clip, model = make(project, name, options, perturb=0.1)
    batch = Cache(project, FRAMES, clip.visual).batch(["v5"])
    changed = batch.x.clone()
    changed[:, 2:] = 255 - changed[:, 2:]
    other = type(batch)(changed, batch.length, batch.position)
    assert model.video(batch).allclose(model.video(other), atol=1e-6)


@pytest.mark.parametrize("query", ["frame", "text"])
def test_no_caption_leaks_into_its_own_video(project, query):
    """Permuting which captions belong to which videos permutes the similarity matrix and changes no entry."""
    clip, model = make(project, "rap", {"asa": {"form": "attention", "query": query, "top_k": 2}}, perturb=0.3)
    ids = [f"v{i}" for i in range(8)]
    clips = Cache(project, FRAMES, clip.visual).batch(ids)
    order = [3, 1, 7, 0, 2, 6, 4, 5]
    straight = model.similarity(clips, Cache(project, "text-ids", clip.text).batch([f"{id}#0" for id in ids]))
    permuted = model.similarity(clips, Cache(project, "text-ids", clip.text).batch([f"{ids[i]}#0" for i in order]))
    torch.testing.assert_close(permuted, straight[order], rtol=0, atol=1e-6)


def test_the_text_changes_the_encoding_of_a_video(project):
    """With asa.query: text, no single embedding per video explains its cosines with many queries."""
    clip, model = make(project, "asa", {"asa": {"form": "attention", "query": "text", "top_k": 1}}, perturb=0.5)
    clips = Cache(project, FRAMES, clip.visual).batch([f"v{i}" for i in range(8)])
    queries = torch.nn.functional.normalize(torch.randn(64, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    with torch.no_grad():
        cosines = model.pairs(clips, queries)
    best = torch.linalg.lstsq(queries, cosines).solution
    assert (queries @ best - cosines).abs().max() > 1e-3


@pytest.mark.parametrize("blocks", [[2], [1], [0, 2]])
def test_texts_in_one_batch_have_the_results_of_single_texts_and_share_the_prefix(project, blocks):
    """The input norm of the first conditioned block runs once per clip, not once per text."""
    options = {
        "asa": {"form": "attention", "query": "text", "top_k": 2, "blocks": blocks},
        "lorm": {"sites": ["input", "ln_2", "ln_post"]},
    }
    clip, model = make(project, "rap", options, perturb=0.3)
    clips = Cache(project, FRAMES, clip.visual).batch([f"v{i}" for i in range(6)])
    queries = torch.nn.functional.normalize(torch.randn(6, E, generator=torch.Generator().manual_seed(0)), dim=-1)
    alone = torch.cat([model.pairs(clips, query[None]) for query in queries])
    rows, norm = [], model.clip.visual.transformer.resblocks[blocks[0]].ln_1
    handle = norm.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    together = model.pairs(clips, queries)
    handle.remove()
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    assert rows == [6, 36]  # all tokens of 6 clips, then the selected tokens of 36 pairs


@pytest.mark.parametrize("name", registry.methods())
def test_only_time_blind_methods_ignore_the_order_of_frames(project, name):
    """Permuting the frames changes the embedding by more than rounding, except for time-blind methods."""
    clip, model = make(project, name, {}, perturb=0.3)
    batch = Cache(project, FRAMES, clip.visual).batch(["v0", "v1", "v2"])
    other = type(batch)(batch.x[:, [2, 0, 3, 1]], batch.length, batch.position)
    apart = (model.video(batch) - model.video(other)).abs().max()
    assert apart < 1e-5 if name in BLIND else apart > 1e-4


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_saved_and_loaded_adapter_computes_the_same_similarity(project, name, options, tmp_path):
    clip, model = make(project, name, options, perturb=0.1)
    save_file({key: value.contiguous() for key, value in model.adapter.state_dict().items()}, tmp_path / "adapter")
    _, other = make(project, name, options, perturb=0.2)
    other.adapter.load_state_dict(load_file(tmp_path / "adapter"))
    clips = Cache(project, FRAMES, clip.visual).batch(["v0", "v5", "v2"])
    captions = Cache(project, "text-ids", clip.text).batch(["v0#0", "v1#1"])
    assert torch.equal(model.similarity(clips, captions), other.similarity(clips, captions))


def test_only_trained_parameters_are_saved(project):
    """Partial tuning saves only its own blocks, not a copy of CLIP."""
    for name in set(registry.methods()) - {"full", "sequential"}:
        _, model = make(project, name, {})
        assert sum(value.numel() for value in model.adapter.state_dict().values()) == model.adapter.count, name


@pytest.mark.parametrize("name", registry.methods())
def test_any_method_embeds_half_of_the_frames_after_a_merge(project, name):
    clip, model = make(project, name, {"merge": {"blocks": [1]}})
    batch, tower = Cache(project, FRAMES, clip.visual).batch(["v0"]), model.clip.visual
    context = Context(tower, batch.length)
    embedded = tower.run(batch.x, batch.position, tower.all, context, model.adapter.video)
    assert embedded.shape[1] == T // 2 and torch.equal(context.length, (batch.length + 1) // 2)


def test_merged_frames_are_means_of_nearest_patches():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 5, 8, generator=generator)
    found = merged(first, second, cls=1)
    assert torch.equal(found[0], (first[0] + second[0]) / 2)
    for patch in range(1, 5):
        cosines = [torch.cosine_similarity(first[patch], second[other], dim=0) for other in range(1, 5)]
        partner = second[1 + int(torch.stack(cosines).argmax())]
        torch.testing.assert_close(found[patch], (first[patch] + partner) / 2)


def test_learnt_words_that_do_not_fit_are_refused(project):
    clip, model = make(project, "coop", {"coop": {"words": 9}})
    with pytest.raises(UserError, match=r"coop\.words: 9 words and captions of 12 exceed"):
        model.text(Cache(project, "text-ids", clip.text).batch(["v0#0"]))


@pytest.mark.parametrize(("length", "weights"), [(4, [0, 0, 0, 1]), (2, [0, 1]), (8, [0] * 6 + [1] * 2)])
def test_the_window_is_the_same_share_of_any_clip(project, length, weights):
    """The last frame of four is the last two of eight, and one of two: at least one frame."""
    _, model = make(project, "window", {"window": {"last": 1}})
    assert model.adapter.head.weights(torch.tensor([length]), length)[0].tolist() == weights


def test_a_weight_changes_the_share_of_its_frame(project):
    _, model = make(project, "static", {})
    frames = torch.nn.functional.normalize(torch.randn(1, T, E, generator=torch.Generator().manual_seed(0)), dim=-1)
    model.adapter.head.weight.data = torch.tensor([0.0, 0.0, 2.0, 0.0])
    length = torch.tensor([T])
    found = model.pool(frames, length, model.adapter.head.weights(length, T))
    torch.testing.assert_close(found, frames[:, 2])


def test_shuffled_frames_are_the_same_frames_in_an_order_of_each_clip(project):
    clip = tiny.clip()
    plain, shuffled = (Cache(project, FRAMES, clip.visual, way) for way in (False, True))
    ids = [f"v{i}" for i in range(8)]
    one, other = plain.batch(ids), shuffled.batch(ids)
    orders = []
    for before, after, length in zip(one.x, other.x, one.length, strict=True):
        assert torch.equal(before[length:], after[length:])
        orders.append([next(i for i in range(length) if torch.equal(frame, before[i])) for frame in after[:length]])
        assert sorted(orders[-1]) == list(range(length))
    assert len({tuple(order) for order in orders}) > 2
    assert torch.equal(other.x, shuffled.batch(ids).x) and torch.equal(other.x[3], shuffled.batch(["v3"]).x[0])


def test_the_page_lists_every_option_with_its_default():
    """docs/method.md, as YAML in one line."""
    listed = dict(re.findall(r"^\| `(\w+)` \| (`\w+: .*`) \|$", (tiny.ROOT / "docs/method.md").read_text(), flags=re.M))
    groups = {name: group for method in registry.methods().values() for name, group in method.groups.items()}
    shown = {name: yaml.safe_load(f"{{{text.replace('`', '')}}}") for name, text in listed.items()}
    assert shown == {name: group().model_dump(mode="json") for name, group in groups.items()}
