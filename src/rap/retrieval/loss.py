"""The contrastive loss."""

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(similarity: Tensor, scale: Tensor, positives: Tensor) -> Tensor:
    """Symmetric InfoNCE over cosines [B, B] of captions and clips; pair i is on the diagonal.

    `positives` [B, B] marks captions and clips of one video: off the diagonal they are no negatives and are left out.
    """
    others = positives & ~torch.eye(len(positives), dtype=torch.bool, device=positives.device)
    logits = (scale.exp() * similarity).masked_fill(others, -torch.inf)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
