"""What both networks share - item embeddings, scores, initial weights - and layers that are faster on a CPU.

Shapes: B users, T positions, Q queries, D width, H heads, V items.
"""

import abc
import contextlib
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.sequences import PAD, Sequences
from ..settings import ModelSettings


class Network(nn.Module, abc.ABC):
    """What both networks share: the item embeddings, which are the output weights, too (equation 7), and the bias.

    Tokens: PAD 0, items 1..V, [MASK] V + 1. Column j of the scores belongs to token j + 1: PAD and [MASK] have none,
    so they can never be recommended.
    """

    def __init__(self, item_count: int, settings: ModelSettings):
        super().__init__()
        self.item_count, self.settings = item_count, settings
        self.item_embedding = nn.Embedding(item_count + 2, settings.width, padding_idx=PAD)
        self.item_bias = nn.Parameter(torch.zeros(item_count))

    @property
    def mask_token(self) -> int:
        return self.item_count + 1

    @property
    def device(self) -> torch.device:
        return self.item_bias.device

    @property
    def item_vectors(self) -> Tensor:
        """(V, D): the embeddings of the items, without those of PAD and [MASK]; changing it changes the model."""
        return self.item_embedding.weight[1:-1]

    @abc.abstractmethod
    def user_vectors(self, histories: Sequences) -> Tensor:
        """What is compared with the item embeddings after each history, (B, D)."""

    @torch.inference_mode()
    def score(self, histories: Sequences) -> np.ndarray:
        """Scores (B, V) float32 of every item as the next one after each history."""
        with evaluating(self):
            vectors = self.user_vectors(histories)
            return F.linear(vectors, self.item_vectors, self.item_bias).float().cpu().numpy()


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode (no dropout) inside the `with`, and back into its previous mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def init_weights(module: nn.Module) -> None:
    """Truncated N(0, .02) as in BERT, zero biases. With N(0, 1) and tied weights the loss would start near 25."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx].data)


# what follows is fast on a CPU; elsewhere it is PyTorch's own (benchmarks/step_parts.py compares)


def slices_that_fit(lengths: list[int], most: int) -> Iterator[slice]:
    """Slices of the rows: as many neighbours as have at most `most` positions together when padded to the longest of
    them, or a single row."""
    start = longest = 0
    for row, length in enumerate(lengths):
        longest = max(longest, length)
        if row > start and longest * (row + 1 - start) > most:
            yield slice(start, row)
            start, longest = row, length
    yield slice(start, len(lengths))


def scaled_dot_product(query: Tensor, key: Tensor, value: Tensor, visible: Tensor) -> Tensor:
    """Attention, (B, H, Q, D / H); on a CPU not in bfloat16, whose kernels are slower there."""
    if query.device.type != "cpu" or query.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
    with torch.autocast("cpu", enabled=False):
        attended = F.scaled_dot_product_attention(query.float(), key.float(), value.float(), attn_mask=visible)
    return attended.to(query.dtype)


class Dropout(nn.Module):
    """Dropout; on the CPU, where PyTorch's Bernoulli draws are slow, with one random byte per element, drawn eight at a
    time, and the rate rounded to 1/256. ValueError unless 0 <= rate < 1."""

    def __init__(self, rate: float):
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"the dropout rate is {rate}; it must be at least 0 and below 1")
        self.rate = rate

    def forward(self, states: Tensor) -> Tensor:
        threshold = min(255, round(256 * self.rate))
        if not self.training or threshold == 0 or states.device.type != "cpu":
            return F.dropout(states, self.rate, self.training)
        eights = torch.empty(-(-states.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = eights.view(torch.uint8)[: states.numel()].view(states.shape) >= threshold
        return states * (kept * (256 / (256 - threshold))).to(states.dtype)
