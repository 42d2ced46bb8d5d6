"""The contrastive losses: of the logits [B, B] of captions and clips, over all processes; pair i is on the diagonal.

`positives` [B, B] marks captions and clips of the same video. Those off the diagonal are not negatives: a loss excludes
them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from rap.clip.towers import Clip
from rap.errors import UserError


def info_nce(logits: Tensor, positives: Tensor) -> Tensor:
    """Symmetric InfoNCE: each caption chooses among the clips, and each clip among the captions."""
    logits = logits.masked_fill(_others(positives), -torch.inf)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def sigmoid(logits: Tensor, positives: Tensor) -> Tensor:
    """Classify each caption and clip as a pair or not, independently (Zhai et al. 2023, SigLIP, algorithm 1)."""
    sign = 2 * torch.eye(len(logits), device=logits.device) - 1
    return -F.logsigmoid(sign * logits).masked_fill(_others(positives), 0).sum() / len(logits)


def _others(positives: Tensor) -> Tensor:
    return positives & ~torch.eye(len(positives), dtype=torch.bool, device=positives.device)


LOSSES = {"infonce": info_nce, "sigmoid": sigmoid}


def refuse_unfit(loss: str, clip: Clip) -> None:
    """Raises UserError for the sigmoid loss of a backbone without a logit bias, which models the rarity of pairs."""
    if loss == "sigmoid" and clip.logit_bias is None:
        raise UserError(
            "train.loss: sigmoid needs a backbone with a logit_bias, such as SigLIP's; set it to infonce, or name "
            "another backbone (`rap backbones --tag webli`)"
        )
