"""The ModernTransformer: BERT4Rec's tasks in a network of today, built for many targets in one pass.

What differs from bert4rec.py: layer norm comes first, positions are rotary, a short causal convolution mixes each
position with the previous ones, a target is a [MASK] beside the history that nothing sees, and only targets go through
the last block.

Shapes: B users, T positions, M targets per user, N = T + M states, Q queries, D width, H heads, V items.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.sequences import Sequences
from ..settings import ModelSettings
from .bert4rec import BERT4Rec
from .layers import Dropout, Network, init_weights, scaled_dot_product
from .losses import Negatives, cross_entropy
from .masking import MaskedBatch, append_mask

CACHED_STATES = 2**13  # states per part on a CPU: four times as wide in the feed-forward layer, they fit its cache


class Layout(NamedTuple):
    """Where the N states of a batch are, the history's first, and what the last Q of them see."""

    rotation: Tensor  # (B, N, 1, D / H / 2) complex: `rotations` of their positions
    target_positions: Tensor  # (B, M) int64
    is_item: Tensor  # (B, T, 1) bool: neither PAD nor masked
    visible: Tensor  # (B, 1, Q, T) bool


def rotations(positions: Tensor, pairs: int) -> Tensor:
    """Unit complex numbers (B, Q, 1, pairs) for `positions` (B, Q): the rotary embedding of Su et al. (2021, eq. 34),
    with base 1,000 in place of 10,000. The angle grows with the position, at a different speed for each pair. They are
    float32 whatever the precision of the model: bfloat16 cannot tell neighbouring positions of a long history apart."""
    speeds = 1000.0 ** -(torch.arange(pairs, dtype=torch.float32, device=positions.device) / pairs)  # radians/position
    angles = positions[:, :, None, None] * speeds
    return torch.polar(torch.ones_like(angles), angles)


def rotate(vectors: Tensor, rotation: Tensor) -> Tensor:
    """Rotate neighbouring coordinates of `vectors` (B, Q, H, D / H), taken as complex numbers, by `rotations`."""
    pairs = torch.view_as_complex(vectors.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(vectors.dtype)


class Attention(nn.Module):
    """Multi-head attention (section 3.3, equations 1-2) with rotary positions: queries and keys are rotated by their
    positions, so that a match depends on how far apart the two are."""

    def __init__(self, settings: ModelSettings):
        super().__init__()
        self.heads = settings.heads
        self.query = nn.Linear(settings.width, settings.width)
        self.key_value = nn.Linear(settings.width, 2 * settings.width)
        self.project = nn.Linear(settings.width, settings.width)

    def forward(self, queries: Tensor, history: Tensor, visible: Tensor, rotation: Tensor) -> Tensor:
        """What `queries` (B, Q, D) gather from `history` (B, T, D) where `visible` (B, 1, Q, T) says so: (B, Q, D).
        `rotation` holds the positions of the history first and those of `queries` last."""
        # no dropout on the weights: it would rule out the fused kernels, on the CPU above all
        attended = scaled_dot_product(*self.query_key_value(queries, history, rotation), visible)
        return self.project(attended.transpose(1, 2).flatten(2))

    def query_key_value(self, queries: Tensor, history: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries (B, H, Q, D / H), rotated keys and values (B, H, T, D / H)."""
        parts = (self.query(queries), *self.key_value(history).chunk(2, dim=-1))
        query, key, value = (part.unflatten(-1, (self.heads, -1)) for part in parts)
        query, key = rotate(query, rotation[:, -query.shape[1] :]), rotate(key, rotation[:, : key.shape[1]])
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)


class CausalConv(nn.Module):
    """A depthwise causal convolution over the `conv_size` previous positions, whose weights start at 0.

    Primer has one after its queries, keys and values (So et al., 2021, section 3). What comes next depends most on the
    last items, and attention, which has the whole history to look at, is slow to learn that.
    """

    def __init__(self, settings: ModelSettings):
        super().__init__()
        size = settings.conv_size
        self.weight = nn.Parameter(torch.zeros(size, settings.width), requires_grad=size > 0)

    def forward(self, history: Tensor, target_positions: Tensor) -> Tensor:
        """For each position of `history` (B, T, D), then for each of `target_positions` (B, M), the weighted sum of the
        positions before it: (B, T + M, D). Rows of `history` that must not be seen must be zero."""
        (batch, length, width), size = history.shape, len(self.weight)
        padded = F.pad(history, (0, 0, size, 0))
        sums = history.new_zeros(batch, length + 1, width)  # a target may come after the newest item
        for back, weight in enumerate(self.weight, start=1):
            sums = sums + weight * padded[:, size - back : size - back + length + 1]
        rows = target_positions + (length + 1) * torch.arange(batch, device=history.device)[:, None]
        return torch.cat([sums[:, :-1], F.embedding(rows, sums.flatten(0, 1))], 1)


class Block(nn.Module):
    """A transformer layer, layer norm first (it trains without a long warm-up), with a causal convolution."""

    def __init__(self, settings: ModelSettings):
        super().__init__()
        self.attention_norm = nn.LayerNorm(settings.width)
        self.conv = CausalConv(settings)
        self.attention = Attention(settings)
        self.feed_forward_norm = nn.LayerNorm(settings.width)
        self.expand = nn.Linear(settings.width, 4 * settings.width)
        self.contract = nn.Linear(4 * settings.width, settings.width)
        self.dropout = Dropout(settings.dropout)

    def forward(self, states: Tensor, layout: Layout) -> Tensor:
        """New states (B, Q, D) of the last Q of `states` (B, N, D). They attend to the first T, the history."""
        queries, history = slice(-layout.visible.shape[2], None), slice(layout.visible.shape[3])
        normed = self.attention_norm(states)
        previous = self.conv(normed[:, history] * layout.is_item, layout.target_positions)
        normed = normed + previous
        attended = self.attention(normed[:, queries], normed[:, history], layout.visible, layout.rotation)
        states = states[:, queries] + previous[:, queries] + self.dropout(attended)
        expanded = F.gelu(self.expand(self.feed_forward_norm(states)))
        return states + self.dropout(self.contract(expanded))


class ModernTransformer(Network):
    """Predicts the items behind the [MASK]s of a history."""

    def __init__(self, item_count: int, settings: ModelSettings):
        super().__init__(item_count, settings)
        self.embedding_dropout = Dropout(settings.dropout)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.layers))
        self.final_norm = nn.LayerNorm(settings.width)
        self.apply(init_weights)

    def forward(
        self, batch: MaskedBatch, target_index: Tensor | None = None, negatives: Negatives | None = None
    ) -> Tensor:
        """The loss: mean cross-entropy over all targets, in nats (equation 8), or its estimate from `negatives`.
        `target_index` (N,) int64 is `batch.target_index()`, computed beforehand: a GPU would have to stop for it."""
        index = batch.target_index() if target_index is None else target_index
        states, labels = self.target_states(batch).flatten(0, 1)[index], batch.labels.flatten()[index] - 1
        return cross_entropy(states, self.item_vectors, self.item_bias, labels, negatives)

    def target_states(self, batch: MaskedBatch) -> Tensor:
        """Final states (B, M, D) of the targets. On a CPU a large batch goes through in parts that fit its cache."""
        states, layout = self.embed(batch)
        rows = micro_batch_rows(self.device, states.shape[1])
        parts = zip(states.split(rows), *(part.split(rows) for part in layout), strict=True)
        return torch.cat([self.encode(part, Layout(*its_layout)) for part, *its_layout in parts])

    def embed(self, batch: MaskedBatch) -> tuple[Tensor, Layout]:
        """The states (B, T + M, D) of history and targets before the first block, and their layout."""
        history, targets = batch.history, batch.target_positions
        masks = torch.full_like(targets, self.mask_token)
        states = self.item_embedding(torch.cat([history, masks], 1))
        columns = torch.arange(history.shape[1], device=history.device).expand_as(history)
        rotation = rotations(torch.cat([columns, targets], 1), self.settings.width // self.settings.heads // 2)
        is_item = batch.is_item(self.mask_token)
        return states, Layout(rotation, targets, is_item[:, :, None], batch.attention_mask(self.mask_token))

    def encode(self, states: Tensor, layout: Layout) -> Tensor:
        """Final states (B, M, D) of the targets, from what `embed` returns. The last block makes new states for the
        targets only: nothing attends to the history's states after it."""
        states = self.embedding_dropout(states)
        for block in self.blocks[:-1]:
            states = block(states, layout)
        of_targets = layout.visible[:, :, -layout.target_positions.shape[1] :]
        return self.final_norm(self.blocks[-1](states, layout._replace(visible=of_targets)))

    def logits(self, states: Tensor) -> Tensor:
        """Scores of all items, (..., V), from final states (..., D)."""
        return F.linear(states, self.item_vectors, self.item_bias)

    def user_vectors(self, histories: Sequences) -> Tensor:
        """What is compared with the item embeddings after each history, (B, D)."""
        batch = append_mask(histories, self.settings.max_length, self.settings.causal).to(self.device)
        return self.target_states(batch)[:, 0]


def build_network(item_count: int, settings: ModelSettings) -> Network:
    """The untrained network that `settings.network` names."""
    return BERT4Rec(item_count, settings) if settings.network == "bert4rec" else ModernTransformer(item_count, settings)


def micro_batch_rows(device: torch.device, length: int) -> int:
    """How many rows of `length` states to take through the network together: on a CPU as many as stay in its cache
    from one operation to the next, elsewhere all of them."""
    return max(1, CACHED_STATES // length) if device.type == "cpu" else 2**31
