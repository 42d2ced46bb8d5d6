"""From videos to embeddings with the method of clip-video-encode, on current libraries: OpenCV, PIL and open_clip.

`python opencv_road.py FOLDER MODEL WEIGHTS EVERY COUNT OUT`: every video of the folder is cut into spans of EVERY
seconds (0: one span). OpenCV decodes all of its pictures; the COUNT pictures in the middle of equal parts of a span go
through open_clip's own transform. The model embeds them in batches, while reader processes work ahead. OUT.npy gets the
mean embedding of each span, [spans, E] float32, in the order of the videos' names.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import open_clip
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

BATCH = 384  # pictures through the model at once


class Pictures(IterableDataset):
    """The chosen pictures of all videos, transformed, each with the numbers of its video and its span."""

    def __init__(self, videos: list[Path], every: float, count: int, transform):
        self.videos, self.every, self.count, self.transform = videos, every, count, transform

    def __iter__(self) -> Iterator[tuple[int, int, torch.Tensor]]:
        worker = get_worker_info()
        for number in range(worker.id, len(self.videos), worker.num_workers):
            opened = cv2.VideoCapture(str(self.videos[number]))
            pictures = int(opened.get(cv2.CAP_PROP_FRAME_COUNT))
            length = round(self.every * opened.get(cv2.CAP_PROP_FPS)) or pictures
            for place in range(pictures):
                if not opened.grab():
                    break
                span, inside = divmod(place, length)
                if inside in self.middles(min(length, pictures - span * length)):
                    shown = cv2.cvtColor(opened.retrieve()[1], cv2.COLOR_BGR2RGB)
                    yield number, span, self.transform(Image.fromarray(shown))

    def middles(self, length: int) -> set[int]:
        return {int((step + 0.5) * length / self.count) for step in range(self.count)}


def main(folder: str, model: str, weights: str, every: str, count: str, out: str) -> None:
    torch.set_num_threads(os.cpu_count() or 1)
    clip, _, transform = open_clip.create_model_and_transforms(model, pretrained=weights)
    clip.eval()
    videos = sorted(Path(folder).iterdir())
    pictures = Pictures(videos, float(every), int(count), transform)
    readers = min(os.cpu_count() or 1, len(videos))
    found: dict[tuple[int, int], list[np.ndarray]] = {}
    with torch.no_grad():
        for numbers, spans, batch in DataLoader(pictures, BATCH, num_workers=readers, prefetch_factor=2):
            embedded = torch.nn.functional.normalize(clip.encode_image(batch), dim=-1)
            for place in zip(numbers.tolist(), spans.tolist(), embedded.numpy(), strict=True):
                found.setdefault(place[:2], []).append(place[2])
    np.save(out, np.stack([np.mean(found[place], axis=0) for place in sorted(found)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
