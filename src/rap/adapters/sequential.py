"""CLIP4Clip's sequential heads: an LSTM or a Transformer over the frame embeddings."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rap.adapters.base import Adapter, Head
from rap.adapters.full import whole
from rap.adapters.layers import at_frames
from rap.adapters.registry import register
from rap.clip.towers import Clip, Tuner
from rap.params import Count, Section


class Options(Section):
    head: Literal["lstm", "transformer"] = "transformer"
    layers: Count = 1
    tune: Literal["none", "full"] = "full"  # the part of CLIP that is trained with the head


class Lstm(Head):
    """x + LSTM(x) over the valid frames."""

    def __init__(self, width: int, layers: int):
        super().__init__()
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)

    def forward(self, x: Tensor, length: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, length.cpu(), batch_first=True, enforce_sorted=False)
        return x + pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])[0]


class Transformer(Head):
    """x + Transformer(x + position) over the valid frames."""

    def __init__(self, width: int, layers: int, frames: int):
        super().__init__()
        self.position = nn.Parameter(0.02 * torch.randn(frames, width))
        heads = max(1, width // 64)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, x: Tensor, length: Tensor) -> Tensor:
        padding = torch.arange(x.shape[1], device=x.device) >= length[:, None]
        return x + self.encoder(x + at_frames(self.position, length, x.shape[1]), src_key_padding_mask=padding)


class Embeddings(Tuner):
    """Edits nothing; training starts from the tower's cached embeddings."""

    def __init__(self, clip: Clip):
        super().__init__()
        self.first_block = clip.visual.all


@register("sequential", blocks=lambda sequential: sequential.tune == "full", identity=False, sequential=Options)
def build(clip: Clip, frames: int, sequential: Options) -> Adapter:
    """An LSTM or a Transformer on the frame embeddings (CLIP4Clip seqLSTM and seqTransf, Luo et al. 2021)

    The paper initialises the Transformer from CLIP's weights; this one starts at random.
    Parameters per layer, where E is the width of the joint space: LSTM 8 E^2 + 8 E, Transformer 12 E^2 + 13 E, plus
    once T E for its positions; with `tune: full`, plus those of full fine-tuning.
    """
    width, layers = clip.embed_dim, sequential.layers
    head = Lstm(width, layers) if sequential.head == "lstm" else Transformer(width, layers, frames)
    if sequential.tune == "none":
        return Adapter(video=Embeddings(clip), head=head)
    adapter = whole(clip)
    adapter.head = head
    return adapter
