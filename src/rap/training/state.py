"""The state of a training between two steps, and the checkpoint that holds it."""

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from rap.adapters.base import Adapter
from rap.errors import UserError
from rap.files import atomic

FIELDS = ("step", "seconds", "history", "best")


@dataclass
class State:
    """Everything that the next step depends on, and what was measured so far."""

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
            torch.save(values | {name: getattr(self, name) for name in FIELDS}, temporary)

    def resume(self, path: Path, provenance: str, device: torch.device) -> None:
        """Continue from a checkpoint, if there is one of the same provenance. Raises UserError if it is damaged."""
        if not path.exists():
            return
        if not _is_intact(path):
            raise UserError(f"{path}: damaged; remove it to train from the start")
        saved = torch.load(path, map_location=device, weights_only=True)
        if saved["provenance"] != provenance:
            return
        self.adapter.load_state_dict(saved["adapter"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.schedule.load_state_dict(saved["schedule"])
        for name in FIELDS:
            setattr(self, name, saved[name])


def _is_intact(path: Path) -> bool:
    """Whether every part has its CRC-32: a checkpoint of torch is a zip file."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError):
        return False
