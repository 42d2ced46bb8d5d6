"""A library: the videos of the dataset, indexed by one model; found by words, by a picture, or by a video.

from rap import params
from rap.search.library import Library

library = Library.open(params.load())
for hit in library.text("a dog jumps", top=3):
    print(hit.cosine, hit.file, hit.start)
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rap import paths
from rap.clip.backbone import identity, read_config
from rap.data.registry import videos_folder
from rap.errors import UserError
from rap.params import Params, hint
from rap.retrieval import adapter_file
from rap.retrieval.pretrained import Pretrained, from_pretrained, untrained
from rap.runtime.device import setup
from rap.search import cells, pictures
from rap.search.cells import Cells
from rap.search.hits import Hit, merged
from rap.search.index import Index, other_frames, refresh

SPLITS = ("all", "train", "val", "test")


@dataclass(frozen=True)
class Library:
    """An index of the dataset's videos and the model that made it.

    `made`: the number of newly indexed videos. `note`: a message about the default model, or empty. `cells`: for
    approximate search, or None.
    """

    model: Pretrained
    index: Index
    folder: Path  # of the videos; their paths are relative to it
    made: int
    note: str
    cells: Cells | None = None

    @classmethod
    def open(
        cls,
        params: Params,
        variant: str | None = None,
        seed: int = 0,
        adapter: str | Path | None = None,
        approximate: bool = False,
    ) -> "Library":
        """Load a trained variant, or an adapter file, and index new videos.

        Without either: the last variant of `run` that is trained on the present backbone and frames, else zero-shot
        CLIP. `approximate`: a query reads only the nearest cells (rap.search.cells). Raises UserError if a named
        variant is not trained, or nothing is cached yet.
        """
        model, note = _model(params, variant, seed, adapter)
        index, made = refresh(params, model.to(setup(params.runtime)))
        near = cells.refresh(index.stem, index.embeddings) if approximate else None
        return cls(model, index, videos_folder(params), made, note, near)

    @property
    def variant(self) -> str:
        return self.model.header.trained.variant

    def text(self, query: str, top: int = 10, split: str = "all") -> list[Hit]:
        """The best videos for a text, best first. Raises UserError if it is empty, or no video is in the split."""
        words = " ".join(query.split())
        if not words:
            raise UserError('search: the query is empty; say what the video shows, such as `rap search "a dog jumps"`')
        return self._nearest(self.model.texts([words])[0].cpu().numpy(), top, split)

    def like(self, example: str | Path, top: int = 10, split: str = "all") -> list[Hit]:
        """The videos most like an example, best first.

        The example is a video of the library (its id, its path in the library's folder or from here), which is then
        left out of the answer, or any other video file or picture. Raises UserError if it cannot be read.
        """
        known = self._row(str(example))
        if known is not None:
            return self._nearest(self.index.embeddings[known], top, split, without=known)
        if pictures.is_picture(example):
            embedding = self.model.model.video(pictures.batch(example, self.model.recipe).to(self.model.device))
        else:
            embedding = self.model.videos([example])
        return self._nearest(embedding[0].cpu().numpy(), top, split)

    def _row(self, example: str) -> int | None:
        """The row of the index that an id or a path names: the whole video, or its first span."""
        names, path = self.index.names, Path(example)
        inside = str(path.relative_to(self.folder)) if path.is_relative_to(self.folder) else example
        return names.get(example, names.get(inside))

    def _nearest(self, query: np.ndarray, top: int, split: str, without: int | None = None) -> list[Hit]:
        if split not in SPLITS:
            raise UserError(f"search: no split {split!r}{hint(split, SPLITS)}")
        usable = np.ones(len(self.index.videos), bool)
        if split != "all":
            usable = np.asarray(self.index.split == split)
        if not usable.any():
            raise UserError(
                f"search: split {split!r} has no video that could be decoded; leave --split out to search all"
            )
        if without is not None:
            usable[without] = False
        if self.cells is None:
            return merged(self.index.videos, self.index.embeddings @ query, usable, top, self.folder)
        rows = self.cells.near(query, usable, top)
        cosines = np.full(len(usable), -np.inf, np.float32)
        cosines[rows] = self.index.embeddings[rows] @ query
        return merged(self.index.videos, cosines, np.isfinite(cosines), top, self.folder)


def _model(params: Params, variant: str | None, seed: int, adapter: str | Path | None) -> tuple[Pretrained, str]:
    """The model to search with, and a message if the user may expect another one."""
    folder = paths.backbone(params.backbone.name)
    if adapter:
        return from_pretrained(adapter, folder), ""
    known = params.all_variants
    if variant is None:
        return _default(params, seed)
    if variant not in known:
        raise UserError(f"params.yaml: variants: there is no {variant!r}{hint(variant, known)}")
    if known[variant].adapter == "none":
        return untrained(params, variant), ""
    file = paths.run(variant, seed).adapter
    if not file.exists():
        raise UserError(f"{file}: not trained yet; run `rap train --variant {variant} --seed {seed}`, or `dvc repro`")
    return from_pretrained(file, folder), ""


def _default(params: Params, seed: int) -> tuple[Pretrained, str]:
    """The last variant of `run` that can search the present caches, else zero-shot CLIP; and why later ones cannot."""
    note = ""
    for name in reversed(params.run):
        if params.variant(name).adapter == "none":
            continue
        if not (reason := unfit(params, name, seed)):
            file = paths.run(name, seed).adapter
            return from_pretrained(file, paths.backbone(params.backbone.name)), note and f"{note}, so {name} searched"
        note = note or f"{name} is {reason}"
    plain = next((name for name, one in params.all_variants.items() if one.adapter == "none"), None)
    if plain is None:
        raise UserError(f"search: {note}, and params.yaml has no variant with adapter: none")
    return untrained(params, plain), note and f"{note}, so zero-shot CLIP searched"


def unfit(params: Params, variant: str, seed: int) -> str:
    """Why a variant cannot search the present caches, or an empty text."""
    file = paths.run(variant, seed).adapter
    if not file.exists():
        return "not trained yet"
    try:
        header, _ = adapter_file.read(file)
    except UserError:
        return "damaged"
    if header.backbone.digest != identity(read_config(paths.backbone(params.backbone.name))):
        return "trained on another backbone"
    return "trained on other frames" if other_frames(params, header) else ""
