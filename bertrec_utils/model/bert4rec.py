"""BERT4Rec as its authors built it (Sun et al., CIKM 2019, sections 3.2 to 3.6): the plain network, to be read first.

Two layer norms that the paper does not mention are in its authors' code, and here. What is not as in their code, and
why, is in docs/bert4rec.md.

Shapes: B users, T positions, M targets per user, Q queries, D width, H heads, V items.
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

CACHED_FLOATS = 2**19  # of the widest states, those inside a feed-forward layer, stay in a processor's cache


class Block(nn.Module):
    """A transformer layer (section 3.3). Every item sees every item, on both sides, and the [MASK]s too."""

    def __init__(self, settings: ModelSettings):
        super().__init__()
        width = settings.width
        self.heads = settings.heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.project = nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = Dropout(settings.dropout)

    def forward(self, queries: Tensor, states: Tensor, visible: Tensor) -> Tensor:
        """New states (B, Q, D) of `queries` (B, Q, D), which attend to `states` (B, T, D) where `visible` (B, T) is
        true. Where a state is to change, it is among the queries."""
        parts = (self.query(queries), self.key(states), self.value(states))
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)  # (B, H, ., D / H)
        attended = scaled_dot_product(query, key, value, visible[:, None, None])  # equations 1 and 2
        attended = self.project(attended.transpose(1, 2).flatten(2))
        states = self.attention_norm(queries + self.dropout(attended))  # equation 6: the norm comes after the sum
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
    def user_vectors(self, histories: Sequences) -> Tensor:
        """What is compared with the item embeddings after each history, (B, D)."""

    @torch.inference_mode()
    def score(self, histories: Sequences) -> np.ndarray:
        """Scores (B, V) float32 of every item as the next one after each history."""
        with evaluating(self):
            vectors = self.user_vectors(histories)
            return F.linear(vectors, self.item_embedding.weight[1:-1], self.item_bias).float().cpu().numpy()


class BERT4Rec(Network):
    """A history in which some items are replaced by [MASK] goes in; at each [MASK] a score of every item comes out."""

    def __init__(self, item_count: int, settings: ModelSettings):
        super().__init__(item_count, settings)
        self.position_embedding = nn.Embedding(settings.max_length, settings.width)  # section 3.4
        self.embedding_norm = nn.LayerNorm(settings.width)  # as in the authors' code
        self.dropout = Dropout(settings.dropout)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.layers))
        self.project = nn.Linear(settings.width, settings.width)
        self.project_norm = nn.LayerNorm(settings.width)  # likewise
        self.apply(init_weights)
        for module in self.modules():
            if isinstance(module, nn.Linear):  # N(0, .02) leaves hidden layers of this width near zero for many epochs
                nn.init.xavier_normal_(module.weight)

    def encode(self, tokens: Tensor) -> Tensor:
        """Final states (B, T, D) of `tokens` (B, T), T at most `max_length`. The newest item has the last position."""
        states, visible = self.embed(tokens), tokens != PAD
        for block in self.blocks:
            states = block(states, states, visible)
        return states

    def embed(self, tokens: Tensor) -> Tensor:
        """What goes into the first block, (B, T, D): item and position embeddings (section 3.4)."""
        positions = torch.arange(-tokens.shape[1], 0, device=tokens.device) + self.settings.max_length
        return self.dropout(self.embedding_norm(self.item_embedding(tokens) + self.position_embedding(positions)))

    def logits(self, states: Tensor) -> Tensor:
        """Scores (..., V) from final states (..., D): equation 7, before the softmax. Input and output share the item
        embeddings."""
        return F.linear(self.transform(states), self.item_embedding.weight[1:-1], self.item_bias)

    def transform(self, states: Tensor) -> Tensor:
        """What is compared with the item embeddings, (..., D)."""
        return self.project_norm(F.gelu(self.project(states)))

    def forward(self, batch: MaskedBatch, valid: Tensor | None = None, negatives: Negatives | None = None) -> Tensor:
        """The loss (equation 8): the mean of -log p(item) over the items masked in `batch.history`, in nats. The mean
        is over all of the batch, so that a long history counts more, not first over those of each history. `valid` and
        `negatives` are as in `ModernTransformer`. ValueError if a target is not masked."""
        valid = batch.valid() if valid is None else valid
        rows, labels = valid // batch.labels.shape[1], batch.labels.flatten()[valid] - 1
        if (batch.history[rows, batch.target_positions.flatten()[valid]] != self.mask_token).any():
            raise ValueError("this network predicts masked items only; set p_cloze to 1 and p_causal to 0")
        states = self.target_states(batch.history, batch.target_positions).flatten(0, 1)[valid]
        return cross_entropy(
            self.transform(states), self.item_embedding.weight[1:-1], self.item_bias, labels, negatives
        )

    def target_states(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Final states (B, M, D) of `tokens` (B, T) at `positions` (B, M): those of `encode`, for less work.

        Nothing attends to the states that the last block makes, so it makes those asked for only. On a CPU a few
        histories go through the network together, as many as its cache holds, without the padding that none of them
        needs."""
        if tokens.device.type != "cpu":
            return self._target_states(tokens, positions)
        lengths = (tokens != PAD).sum(1).tolist()
        parts = []
        for rows in cached_rows(lengths, CACHED_FLOATS // (4 * self.settings.width)):
            unused = tokens.shape[1] - max(lengths[rows])
            parts.append(self._target_states(tokens[rows, unused:], (positions[rows] - unused).clamp(min=0)))
        return torch.cat(parts)

    def _target_states(self, tokens: Tensor, positions: Tensor) -> Tensor:
        states, visible = self.embed(tokens), tokens != PAD
        for block in self.blocks[:-1]:
            states = block(states, states, visible)
        rows = positions + tokens.shape[1] * torch.arange(len(tokens), device=tokens.device)[:, None]
        return self.blocks[-1](F.embedding(rows, states.flatten(0, 1)), states, visible)

    def user_vectors(self, histories: Sequences) -> Tensor:
        """What is compared with the item embeddings, (B, D), at the [MASK] appended to each history (section 3.6)."""
        history = append_mask(histories, self.settings.max_length - 1).history.to(self.device)
        tokens = F.pad(history, (0, 1), value=self.mask_token)
        newest = torch.full((len(tokens), 1), tokens.shape[1] - 1, device=self.device)
        return self.transform(self.target_states(tokens, newest)[:, 0])


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


# what follows is fast on a CPU; elsewhere it is PyTorch's own (benchmarks/step_parts.py compares)


def cached_rows(lengths: list[int], most: int) -> Iterator[slice]:
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
        return F.scaled_dot_product_attention(query.float(), key.float(), value.float(), attn_mask=visible)


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
        return states * (kept * (256 / (256 - threshold)))
