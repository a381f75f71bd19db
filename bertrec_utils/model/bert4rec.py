"""BERT4Rec as its paper has it (Sun et al., CIKM 2019, sections 3.2 to 3.6): the plain network, to be read first.

Not as in the paper: positions count back from the newest item, which is always at the last one; embeddings have
dropout; and training is that of all recipes (AdamW at a rate that rises and falls, any window of a long history).

Shapes: B users, T positions, M targets per user, D width, V items.
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
from .losses import Negatives, cross_entropy
from .masking import MaskedBatch, append_mask


class Block(nn.Module):
    """A transformer layer (section 3.3). Every item sees every item, on both sides, and the [MASK]s too."""

    def __init__(self, settings: ModelSettings):
        super().__init__()
        self.attention = nn.MultiheadAttention(settings.width, settings.heads, batch_first=True)  # equations 1 and 2
        self.expand = nn.Linear(settings.width, 4 * settings.width)
        self.contract = nn.Linear(4 * settings.width, settings.width)
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(settings.width), nn.LayerNorm(settings.width)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, states: Tensor, padding: Tensor) -> Tensor:
        """New states (B, T, D); nothing sees the positions where `padding` (B, T) is true."""
        attended, _ = self.attention(states, states, states, key_padding_mask=padding, need_weights=False)
        states = self.attention_norm(states + self.dropout(attended))  # equation 6: the norm comes after the sum
        processed = self.contract(F.gelu(self.expand(states)))  # equation 3
        return self.feed_forward_norm(states + self.dropout(processed))  # equation 5


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

    @abc.abstractmethod
    def score(self, histories: Sequences) -> np.ndarray:
        """Scores (B, V) float32 of every item as the next one after each history."""


class BERT4Rec(Network):
    """A history in which some items are replaced by [MASK] goes in; at each [MASK] a score of every item comes out."""

    def __init__(self, item_count: int, settings: ModelSettings):
        super().__init__(item_count, settings)
        self.position_embedding = nn.Embedding(settings.max_length, settings.width)  # section 3.4
        self.dropout = nn.Dropout(settings.dropout)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.layers))
        self.project = nn.Linear(settings.width, settings.width)
        self.apply(init_weights)
        for module in self.modules():
            if isinstance(module, nn.MultiheadAttention):  # three matrices in one, which `init_weights` does not see
                nn.init.trunc_normal_(module.in_proj_weight, std=0.02, a=-0.04, b=0.04)

    def encode(self, tokens: Tensor) -> Tensor:
        """Final states (B, T, D) of `tokens` (B, T), T at most `max_length`. The newest item has the last position."""
        positions = torch.arange(-tokens.shape[1], 0, device=tokens.device) + self.settings.max_length
        states = self.dropout(self.item_embedding(tokens) + self.position_embedding(positions))  # section 3.4
        for block in self.blocks:
            states = block(states, padding=tokens == PAD)
        return states

    def logits(self, states: Tensor) -> Tensor:
        """Scores (..., V) from final states (..., D): equation 7, before the softmax. Input and output share the item
        embeddings."""
        return F.linear(F.gelu(self.project(states)), self.item_embedding.weight[1:-1], self.item_bias)

    def forward(self, batch: MaskedBatch, valid: Tensor | None = None, negatives: Negatives | None = None) -> Tensor:
        """The loss (equation 8): the mean of -log p(item) over the items masked in `batch.history`, in nats. The mean
        is over all of the batch, so that a long history counts more, not first over those of each history. `valid` and
        `negatives` are as in `ModernTransformer`. ValueError if a target is not masked."""
        valid = batch.valid() if valid is None else valid
        rows, labels = valid // batch.labels.shape[1], batch.labels.flatten()[valid] - 1
        positions = batch.target_positions.flatten()[valid]
        if (batch.history[rows, positions] != self.mask_token).any():
            raise ValueError("this network predicts masked items only; set p_cloze to 1 and p_causal to 0")
        states = self.encode(batch.history)[rows, positions]
        if negatives is None:
            return F.cross_entropy(self.logits(states), labels)
        states = F.gelu(self.project(states))
        return cross_entropy(states, self.item_embedding.weight[1:-1], self.item_bias, labels, negatives)

    @torch.inference_mode()
    def score(self, histories: Sequences) -> np.ndarray:
        """Scores (B, V) float32 of every item as the next one: [MASK] is appended to each history (section 3.6)."""
        history = append_mask(histories, self.settings.max_length - 1).history.to(self.device)
        with evaluating(self):
            states = self.encode(F.pad(history, (0, 1), value=self.mask_token))
            return self.logits(states[:, -1]).float().cpu().numpy()


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout inside the `with`; afterwards the model is in the mode it was in before."""
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
