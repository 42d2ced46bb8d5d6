"""The dataset `demo`: scenes in three disjoint splits, each rendered forwards and backwards as an mp4 file."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rap.data.manifest import Manifest
from rap.data.registry import DatasetInfo, own_folder
from rap.demo.captions import caption
from rap.demo.film import complete, encode, fingerprint, render
from rap.demo.scenes import KINDS, Part, Scene, draw_scene, key
from rap.params import Demo, Params
from rap.progress import progress

DATASET = DatasetInfo(own_folder)
SPLITS = ("test", "val", "train")  # in this order, so that test scenes do not depend on the number of training scenes
PARTS: dict[str, Part] = {"test": "held out", "val": "held out", "train": "seen"}
CAPTIONS = {"test": 1, "val": 1, "train": 2}  # per clip
DIRECTIONS = ("forwards", "backwards")


@dataclass(frozen=True)
class Take:
    """A scene of a split, to be rendered once and encoded in both directions."""

    split: str
    number: int
    scene: Scene
    seed: tuple[int, ...]

    def name(self, direction: str) -> str:
        return f"{self.split}-{self.number:04d}-{direction}"


def prepare(params: Params, videos: Path) -> Manifest:
    """Write the demo's clips to `videos` and list them. Complete clips are not rendered again."""
    takes = list(draw_takes(params.dataset.demo))
    with ThreadPoolExecutor(params.runtime.workers) as pool:
        written = pool.map(lambda take: write_clips(take, videos), takes)
        for _ in progress(written, "demo scenes", total=len(takes), unit="scene"):
            pass
    return manifest(takes)


def draw_takes(demo: Demo) -> Iterator[Take]:
    """The scenes of every split. The kinds alternate; no scene repeats, not even in reverse."""
    taken: set[str] = set()
    for index, split in enumerate(SPLITS):
        for number in range(getattr(demo, split)):
            rng = np.random.default_rng((demo.seed, index, number))
            scene = draw_scene(rng, KINDS[number % len(KINDS)], PARTS[split])
            while key(scene) in taken:
                scene = draw_scene(rng, scene.kind, PARTS[split])
            taken.add(key(scene))
            yield Take(split, number, scene, (demo.seed, index, number, 1))


def write_clips(take: Take, videos: Path) -> int:
    """Encode the clips of a take that are not complete in `videos`; returns their number."""
    files = {way: videos / f"{take.name(way)}.mp4" for way in DIRECTIONS}
    marks = {way: fingerprint(take.scene, take.seed, way == "backwards") for way in DIRECTIONS}
    missing = [way for way in DIRECTIONS if not complete(files[way], marks[way])]
    if missing:
        frames = render(take.scene, take.seed)
        for way in missing:
            encode(frames if way == "forwards" else frames[::-1], files[way], marks[way])
    return len(missing)


def manifest(takes: list[Take]) -> Manifest:
    """One row per clip, whose twin is the same scene in the other direction, and its captions."""
    clips, texts = [], []
    for take in takes:
        rng = np.random.default_rng((*take.seed, 1))
        scenes = (take.scene, take.scene.backwards())
        for way, other, scene in zip(DIRECTIONS, DIRECTIONS[::-1], scenes, strict=True):
            video = take.name(way)
            clip = {"video_id": video, "path": f"{video}.mp4", "split": take.split, "status": "ok"}
            clips.append(clip | {"twin": take.name(other)})
            for number, text in enumerate(_captions(scene, CAPTIONS[take.split], rng)):
                row = {"caption_id": f"{video}-{number}", "video_id": video, "caption": text, "kind": scene.kind}
                texts.append(row)
    return Manifest.build(clips, texts)


def _captions(scene: Scene, count: int, rng: np.random.Generator) -> list[str]:
    """`count` different captions of a scene."""
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[caption(scene, rng)] = None
    return list(texts)
