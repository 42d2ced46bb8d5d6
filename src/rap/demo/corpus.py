"""The corpus: splits of scenes that share none, each filmed forwards and backwards, as mp4 files and a manifest."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rap.data.manifest import Manifest
from rap.data.registry import DatasetInfo, own_folder
from rap.demo.captions import caption
from rap.demo.film import encode, film, recipe, shot
from rap.demo.scenes import KINDS, Scene, draw_scene
from rap.params import Demo, Params

DATASET = DatasetInfo(own_folder)
SPLITS = ("test", "val", "train")  # drawn in this order: more training scenes leave the test scenes as they are
CAPTIONS = {"test": 1, "val": 1, "train": 2}
WAYS = ("forwards", "backwards")


@dataclass(frozen=True)
class Take:
    """A scene of a split, to be filmed once and encoded both ways."""

    split: str
    number: int
    scene: Scene
    seed: tuple[int, ...]

    def name(self, way: str) -> str:
        return f"{self.split}-{self.number:04d}-{way}"


def prepare(params: Params, videos: Path) -> Manifest:
    """Make the demo's clips in `videos` and list them; a clip that is there already is not drawn again."""
    takes, videos = list(script(params.dataset.demo)), Path(videos)
    with ThreadPoolExecutor(params.runtime.workers) as pool:
        for _ in tqdm(pool.map(lambda take: shoot(take, videos), takes), "demo scenes", len(takes), unit="scene"):
            pass
    return manifest(takes)


def script(demo: Demo) -> Iterator[Take]:
    """The scenes of every split: the kinds take turns, and no scene comes twice, not even backwards."""
    taken = set()
    for index, split in enumerate(SPLITS):
        for number in range(getattr(demo, split)):
            rng = np.random.default_rng((demo.seed, index, number))
            scene = draw_scene(rng, KINDS[number % len(KINDS)])
            while scene.key() in taken:
                scene = draw_scene(rng, scene.kind)
            taken.add(scene.key())
            yield Take(split, number, scene, (demo.seed, index, number, 1))


def shoot(take: Take, videos: Path) -> int:
    """Film a take and encode both ways, those that are missing; returns how many files were written."""
    wanted = {way: recipe(take.scene, take.seed, way == "backwards") for way in WAYS}
    missing = {way: mark for way, mark in wanted.items() if not shot(videos / f"{take.name(way)}.mp4", mark)}
    frames = film(take.scene, take.seed) if missing else None
    for way, mark in missing.items():
        encode(frames if way == "forwards" else frames[::-1], videos / f"{take.name(way)}.mp4", mark)
    return len(missing)


def manifest(takes: list[Take]) -> Manifest:
    """One row per clip, whose twin is the same scene the other way, and its captions."""
    clips, texts = [], []
    for take in takes:
        rng = np.random.default_rng((*take.seed, 1))
        for way, other, scene in zip(WAYS, WAYS[::-1], (take.scene, take.scene.backwards()), strict=True):
            video = take.name(way)
            clips.append(
                {
                    "video_id": video,
                    "path": f"{video}.mp4",
                    "split": take.split,
                    "twin": take.name(other),
                    "status": "ok",
                }
            )
            for number, text in enumerate(_captions(scene, CAPTIONS[take.split], rng)):
                row = {"caption_id": f"{video}-{number}", "video_id": video, "caption": text, "kind": scene.kind}
                texts.append(row)
    return Manifest.build(clips, texts)


def _captions(scene: Scene, count: int, rng: np.random.Generator) -> list[str]:
    """Different captions of one scene."""
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[caption(scene, rng)] = None
    return list(texts)
