"""Write src/rap/clip/models.csv, the models of the installed open_clip: python workflow/scripts/backbones.py

Parameters and arithmetic are counted on models without memory (torch's device meta). A model with a text tower of the
hub needs the file of its configuration, from the hub or from workflow/scripts/hub_towers.py, the extra `hub`, and up to
10 GB of memory. Run it again when open_clip's version in requirements.lock changes.
"""

import csv
import sys
from pathlib import Path

import open_clip
import torch

from rap.clip import backbone, models
from rap.clip.towers import INPUT, Clip, Context, Tuner
from rap.clip.whole import KIND
from rap.errors import UserError
from rap.training.costs import counted

FILE = Path("src/rap/clip/models.csv")


def row(name: str) -> dict:
    config = models.open_clip_config(name, None)
    whole, model = config.get("kind") == KIND, config["model"]
    facts = {
        "name": name,
        "level": "whole" if whole else "blocks",
        "embedding": model["embed_dim"],
        "pixels": config["preprocess"]["size"],
        "blocks": "",
        "tokens": "",
        "words": model["text_cfg"].get("context_length", 77),
        "tags": " ".join(open_clip.list_pretrained_tags_by_model(name)),
    }
    try:
        with torch.device("cpu" if "hf_model_name" in model["text_cfg"] else "meta"):  # transformers reads its masks
            clip = backbone.CLIPS[config.get("kind", "plain")](config).freeze()
            if not whole:
                facts |= {"blocks": clip.visual.layers, "tokens": clip.visual.tokens}
            return facts | counts(clip, config["preprocess"]["size"], facts["words"])
    except UserError as error:
        print(f"{name}: no counts: {error}", file=sys.stderr)
        return facts


def counts(clip: Clip, size: int, words: int) -> dict:
    """Million parameters, and billion operations (a multiply-add counts as two) for a frame and for a caption."""
    pixels, ids = torch.zeros(1, 1, size, size, 3, dtype=torch.uint8), torch.zeros(1, words, dtype=torch.int32)
    one = torch.ones(1, dtype=torch.int64)
    frame = counted(lambda: clip.visual.run(pixels, INPUT, clip.visual.all, Context(clip.visual, one), Tuner()))
    caption = counted(lambda: clip.text.run(ids, INPUT, clip.text.all, Context(clip.text, one), Tuner()))
    million = sum(weight.numel() for weight in clip.weights.parameters()) / 1e6
    return {"parameters": f"{million:.1f}", "frame": f"{frame / 1e9:.2f}", "caption": f"{caption / 1e9:.2f}"}


if __name__ == "__main__":
    columns = (
        "name",
        "level",
        "parameters",
        "embedding",
        "pixels",
        "blocks",
        "tokens",
        "frame",
        "words",
        "caption",
        "tags",
    )
    rows = [row(name) for name in open_clip.list_models()]
    with FILE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
