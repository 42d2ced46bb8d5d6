"""What knows nothing of the relation between frames cannot solve the motions of the demo."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from rap.clip.trainable import open_clip_model
from rap.demo import pretrain
from rap.demo.animate import layers
from rap.demo.captions import caption
from rap.demo.draw import paint
from rap.demo.motions import MOTIONS
from rap.demo.scenes import draw_scene
from rap.demo.stills import prepared

EQUAL = 1e-6  # rounding
T, SCENES = 8, 150  # of a kind: the standard error of a twin accuracy near 50 % is about 3 points
WINDOWS = {f"last {k}": [0.0] * (T - k) + [1.0] * k for k in range(1, T)} | {"rising": list(range(T))}


@pytest.fixture(scope="module")
def model():
    state = load_file(pretrain.FOLDER / "demo-vit.safetensors")
    model = open_clip_model(pretrain.config()["model"]).eval()
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return model


@torch.no_grad()
def similarities(model, kind, part):
    """Cosines [2, SCENES, T] of the captions of scenes, and of their reversals, with the frames of the scenes."""
    rng = np.random.default_rng(("held out", "seen").index(part))
    scenes = [draw_scene(rng, kind, part) for _ in range(SCENES)]
    clips = [paint(scene.background, layers(scene, T, rng), T) for scene in scenes]
    frames = model.encode_image(prepared([frame for clip in clips for frame in clip]), True).unflatten(0, (SCENES, T))
    ways = (scenes, [scene.backwards() for scene in scenes])
    texts = [F.normalize(pretrain.embed(model, [caption(s, rng) for s in way]), dim=-1) for way in ways]
    return torch.stack([torch.einsum("ste,se->st", frames, text) for text in texts])


def twin_accuracy(cosines, weights):
    """In percent: a caption scores its clip above the reversed clip, whose frames are the same in reverse order.

    Both have the same frames, so the norm of a weighted mean differs little, and the weighted sum decides. Equal
    scores, as of a thing at rest in both frames, are half a win.
    """
    weights = torch.as_tensor(weights, dtype=torch.float32)
    ahead = (cosines - cosines.flip(-1)) @ weights
    won = torch.stack([ahead[0], -ahead[1]])
    return 100 * ((won > EQUAL).float() + (won.abs() <= EQUAL).float() / 2).mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("kind", MOTIONS)
def test_no_control_is_more_than_10_points_from_chance_on_a_motion(model, kind):
    cosines = similarities(model, kind, "held out")
    found = {name: twin_accuracy(cosines, weights) for name, weights in WINDOWS.items()}
    found["fitted"] = twin_accuracy(cosines, fitted(similarities(model, kind, "seen")))
    assert all(abs(share - 50) < 10 for share in found.values()), found


def fitted(cosines):
    """One weight per frame, by logistic regression on the difference between a clip and its reversal."""
    ahead = torch.cat([cosines[0] - cosines[0].flip(-1), cosines[1].flip(-1) - cosines[1]])
    ahead = ahead / ahead.std()
    weights = torch.zeros(T, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=50)

    def loss():
        optimiser.zero_grad()
        value = F.softplus(-ahead @ weights).mean() + 1e-3 * weights.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return weights.detach()


@pytest.mark.slow
def test_the_late_frames_do_solve_events(model):
    """The measure above is not blind: on a move, the last frames tell the direction."""
    assert twin_accuracy(similarities(model, "move", "held out"), WINDOWS["last 3"]) > 85
