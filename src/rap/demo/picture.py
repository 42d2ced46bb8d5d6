"""A contact sheet of the demo: test scenes of five kinds over time, each with its caption above and its twin's below.

`python -m rap.demo.picture assets/demo.png` makes the README's picture. Scenes are rendered larger than in the clips.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from rap.demo.corpus import Take, draw_takes, manifest
from rap.demo.film import render
from rap.demo.scenes import Kind
from rap.files import atomic
from rap.params import Demo, load

FRAMES, PIXELS = 8, 160
SHOWN: tuple[Kind, ...] = ("move", "order", "orbit", "chase", "hop")
INK, PALE = "#2b3048", "#8a8fa6"


def picture(path: str | Path, demo: Demo) -> None:
    """Write the sheet as a PNG; the bytes are reproducible."""
    figure = Figure(figsize=(11, 9.4), dpi=110, facecolor="white")
    for row, (take, captions) in enumerate(_one_of_each_kind(demo)):
        _row(figure, 0.995 - row * 0.199, take, captions)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
        Image.open(temporary).convert("RGB").save(temporary, format="png", optimize=True)


def _one_of_each_kind(demo: Demo) -> list[tuple[Take, tuple[str, str]]]:
    """The first test scene of each kind in SHOWN on a background that the others do not use, with both captions."""
    chosen: dict[str, Take] = {}
    for take in draw_takes(demo):
        used = {other.scene.background for kind, other in chosen.items() if kind != take.scene.kind}
        if take.split == "test" and take.scene.kind in SHOWN and (take.scene.background not in used or len(used) > 3):
            chosen.setdefault(take.scene.kind, take)
    takes = [chosen[kind] for kind in SHOWN]
    texts = manifest(takes).captions.drop_duplicates("video_id").caption
    return list(zip(takes, zip(texts[::2], texts[1::2], strict=True), strict=True))


def _row(figure: Figure, top: float, take: Take, captions: tuple[str, str]) -> None:
    frames = render(take.scene, take.seed, PIXELS)
    figure.text(0.013, top - 0.021, f"→  {captions[0]}", color=INK, fontsize=11)
    figure.text(0.987, top - 0.182, f"{captions[1]}  ←", color=PALE, fontsize=9.5, ha="right")
    for column, index in enumerate(np.linspace(0, len(frames) - 1, FRAMES).round().astype(int)):
        axes = figure.add_axes((0.013 + column * 0.1224, top - 0.1655, 0.117, 0.137))
        image = axes.imshow(frames[index], interpolation="bilinear", aspect="auto")
        shape = FancyBboxPatch((0, 0), 1, 1, boxstyle="round,pad=0,rounding_size=0.09", transform=axes.transAxes)
        shape.set(facecolor="none", edgecolor="none")
        image.set_clip_path(axes.add_patch(shape))
        axes.set_axis_off()


if __name__ == "__main__":
    picture(sys.argv[1], load().dataset.demo)
