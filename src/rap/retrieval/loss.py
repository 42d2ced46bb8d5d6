"""The contrastive loss."""

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(similarity: Tensor, scale: Tensor, positives: Tensor) -> Tensor:
    """Symmetric InfoNCE over the cosines [B, B] of captions and clips; pair i is on the diagonal.

    `positives` [B, B] marks captions and clips of the same video. Those off the diagonal are not negatives: the loss
    excludes them.
    """
    others = positives & ~torch.eye(len(positives), dtype=torch.bool, device=positives.device)
    logits = (scale.exp() * similarity).masked_fill(others, -torch.inf)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
