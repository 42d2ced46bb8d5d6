"""The state of a training between two steps, and the checkpoint that holds it."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from rap.adapters.base import Adapter
from rap.files import atomic
from rap.unfinished import checksum

FIELDS = ("step", "seconds", "history", "best")
SUM = 16  # bytes of a checksum


@dataclass
class State:
    """Everything that the next step depends on, and the measurements so far."""

    adapter: Adapter
    optimiser: AdamW
    schedule: LambdaLR
    step: int = 0
    seconds: float = 0.0
    history: list[list] = field(default_factory=list)  # rows of history.csv
    best: tuple[float, int, dict[str, Tensor]] | None = None  # R@1 on the split that selects, its epoch, the weights
    recent: list[tuple[list, Tensor]] = field(default_factory=list)  # steps whose loss is still on the device

    def save(self, path: Path, provenance: str) -> None:
        """Write a checkpoint that belongs to a provenance."""
        values: dict[str, Any] = {
            "provenance": provenance,
            "adapter": self.adapter.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        with atomic(path) as temporary:
            _save(values | {name: getattr(self, name) for name in FIELDS}, temporary)
            written = _checksum(temporary, temporary.stat().st_size)
            with temporary.open("ab") as file:
                file.write(written)

    def resume(self, path: Path, provenance: str, device: torch.device) -> None:
        """Resume from a checkpoint, if there is an undamaged one of the same provenance."""
        if not path.exists():
            return
        if not _is_intact(path):
            print(f"rap: note: {path}: damaged; training starts again", file=sys.stderr)
            return
        saved = torch.load(path, map_location=device, weights_only=True)
        if saved["provenance"] != provenance:
            return
        self.adapter.load_state_dict(saved["adapter"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.schedule.load_state_dict(saved["schedule"])
        for name in FIELDS:
            setattr(self, name, saved[name])


def _save(values: dict, path: Path) -> None:
    """Raises the OSError of a full disk, which torch hides behind a RuntimeError."""
    with path.open("wb") as file:
        try:
            torch.save(values, file)
        except RuntimeError as error:
            raise error.__context__ or error from None


def _checksum(path: Path, size: int) -> bytes:
    """The checksum of a file's first bytes, stored at its end. The zip's own checksums do not cover its directory."""
    return checksum(np.memmap(path, np.uint8, "r", shape=size)).encode()


def _is_intact(path: Path) -> bool:
    size = path.stat().st_size - SUM
    if size <= 0:
        return False
    with path.open("rb") as file:
        file.seek(size)
        return file.read() == _checksum(path, size)
