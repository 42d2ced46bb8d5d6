"""Queries of the test split with their hits: the first right and the first wrong query of each kind."""

import base64
import io
from functools import cache

import numpy as np
import pandas as pd
from PIL import Image

from rap import paths
from rap.data.manifest import Manifest
from rap.frames.pictures import Pictures, reasons
from rap.params import Params

SHOWN = 8  # frames of a strip
SIDE = 72  # pixels of a frame on the page
WIDTH = 3  # clips per query
LONGEST = 24  # queries


def chosen_variant(params: Params) -> str:
    """The variant whose queries are shown: rap, or the last that runs."""
    return "rap" if "rap" in params.run else params.run[-1]


def examples(params: Params, variant: str) -> list[dict]:
    """For each kind of caption, the first query in the test set whose own clip is first, and the first where it is not.

    The queries are not hand-picked. The clips are those of the first seed, best first; each has its strip as a data
    URL and its video.
    """
    folder = paths.run(variant, params.seeds[0])
    ranks = pd.read_parquet(folder.ranks)
    ranks = ranks[(ranks.direction == "t2v") & (ranks.post == "")].reset_index(drop=True)
    similarity = np.load(folder.similarity, mmap_mode="r")
    manifest = Manifest.read(paths.manifest(params.dataset.name))
    captions = manifest.captions.set_index("caption_id")
    videos = _columns(params, manifest)
    assert len(videos) == similarity.shape[1], "similarity.npy has a column for each decoded video of the test split"
    right = (ranks.above == 0) & (ranks.ties == 0)
    first = ranks.assign(right=right).groupby(["kind", "right"], sort=True).head(1).sort_values(["kind", "right"])
    pictures = Pictures(params)
    strip = cache(lambda video: picture(pictures.strip(video, SHOWN)))
    found = []
    for row in first.head(LONGEST).itertuples():
        order = np.argsort(-similarity[row.Index], kind="stable")[:WIDTH]
        own = captions.video_id[row.id]
        hits = [
            {
                "video": videos[column],
                "strip": strip(videos[column]),
                "own": videos[column] == own,
                "cosine": float(similarity[row.Index, column]),
            }
            for column in order
        ]
        rank = row.above + 1
        found.append(
            {
                "caption": captions.caption[row.id], "kind": row.kind, "right": row.right, "rank": rank, "hits": hits,
                "video": own, "own": None if any(hit["own"] for hit in hits) else strip(own),
            }
        )  # fmt: skip
    return found


def _columns(params: Params, manifest: Manifest) -> list[str]:
    """The videos of the columns of similarity.npy: the decoded videos of the test split, with or without captions."""
    why = reasons(params)
    return [id for id in manifest.split("test").videos.video_id if why.get(id) == ""]


def picture(strip: np.ndarray) -> str:
    """Frames uint8 [n, size, size, 3] side by side, as the data URL of a WebP picture."""
    small = [Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.LANCZOS) for frame in strip]
    whole = Image.new("RGB", (SIDE * len(small) + 2 * (len(small) - 1), SIDE), "white")
    for number, frame in enumerate(small):
        whole.paste(frame, (number * (SIDE + 2), 0))
    held = io.BytesIO()
    whole.save(held, "WEBP", quality=82)
    return f"data:image/webp;base64,{base64.b64encode(held.getvalue()).decode()}"
