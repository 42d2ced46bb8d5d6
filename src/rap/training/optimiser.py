"""AdamW and its schedule, as CLIP was trained: weight decay on matrices only, a linear warm-up, a cosine to zero."""

import math
from collections.abc import Callable, Iterable

import torch
import torch._dynamo  # torch's optimisers import it at their first use: processes that are forked later share it
from torch.nn import Parameter
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from rap.params import Train


def optimiser(weights: Iterable[Parameter], steps: int, settings: Train) -> tuple[AdamW, LambdaLR]:
    """The optimiser of the trainable `weights`, and the schedule of `steps` steps."""
    adamw = AdamW(groups(weights, settings.weight_decay), lr=settings.lr)
    return adamw, LambdaLR(adamw, rate(steps, settings.warmup))


def groups(weights: Iterable[Parameter], decay: float) -> list[dict]:
    """Weight decay on matrices only: not on scales, shifts, biases and gates."""
    weights = list(weights)
    flat = [p for p in weights if p.ndim < 2]
    return [
        {"params": [p for p in weights if p.ndim >= 2], "weight_decay": decay},
        {"params": flat or [Parameter(torch.zeros(()))], "weight_decay": 0.0},
    ]


def rate(steps: int, warmup: float) -> Callable[[int], float]:
    """The learning rate at every step as a share of its peak; `warmup` is the share of the steps with a rising rate."""
    rise = max(1, round(warmup * steps))

    def shape(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))

    return shape
