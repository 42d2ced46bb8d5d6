"""A real model of open_clip with random weights, as a file that `backbone.weights` can name."""

from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

SMALL = "ViT-S-32"  # the smallest with the twelve blocks that the presets are written for


def weights(file: Path) -> Path:
    torch.manual_seed(0)
    save_file(open_clip.create_model(SMALL).state_dict(), file)
    return file
