"""A picture as a clip of one frame, for `--like`."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from rap.clip.towers import INPUT
from rap.errors import UserError
from rap.features.cache import Batch

if TYPE_CHECKING:
    from rap.frames.decode import Recipe

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def is_picture(file: str | Path) -> bool:
    return Path(file).suffix.lower() in SUFFIXES


def batch(file: str | Path, recipe: "Recipe") -> Batch:
    """A clip of one valid frame, [1, T, size, size, 3] uint8, padded with zeros. Raises UserError if not a picture.

    Scaled to the backbone's size as its transform does: on the shortest side, then cropped at the centre, or squashed.
    """
    kernel = Image.Resampling[recipe.interpolation.upper()]
    try:
        with Image.open(file) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except FileNotFoundError:
        raise UserError(f"--like: {file} is not there; name a picture or a video") from None
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
        raise UserError(f"--like: {file} cannot be read as a picture") from None
    frames = np.zeros((1, recipe.frames.count, recipe.size, recipe.size, 3), np.uint8)
    size = (recipe.size, recipe.size)
    scaled = upright.resize(size, kernel) if recipe.mode == "squash" else ImageOps.fit(upright, size, kernel)
    frames[0, 0] = np.asarray(scaled)
    return Batch(torch.from_numpy(frames), torch.tensor([1]), INPUT)
