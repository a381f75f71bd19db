"""BERT4Rec as its authors built it (Sun et al., CIKM 2019, sections 3.2 to 3.6): the plain network, to be read first.

Two layer norms that the paper does not mention are in its authors' code, and here. What is not as in their code, and
why, is in docs/bert4rec.md.

Shapes: B users, T positions, M targets per user, Q queries, D width, H heads, V items.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.sequences import PAD, Sequences
from ..settings import ModelSettings
from .layers import Dropout, Network, init_weights, scaled_dot_product, slices_that_fit
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
        """New states (B, Q, D) of `queries` (B, Q, D), which attend to `states` (B, T, D) where `visible` is True:
        (B, Q, T) bool, or (B, 1, T) if it is the same for all queries. To update all states, pass them as queries."""
        parts = (self.query(queries), self.key(states), self.value(states))
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)  # (B, H, ., D / H)
        attended = scaled_dot_product(query, key, value, visible[:, None])  # equations 1 and 2
        attended = self.project(attended.transpose(1, 2).flatten(2))
        states = self.attention_norm(queries + self.dropout(attended))  # equation 6: the norm comes after the sum
        processed = self.contract(F.gelu(self.expand(states)))  # equation 3
        return self.feed_forward_norm(states + self.dropout(processed))  # equation 5


class BERT4Rec(Network):
    """The network of the paper: histories with some items replaced by [MASK] go in, scores of all items come out."""

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
        states, visible = self.embed(tokens), (tokens != PAD)[:, None]
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
        return F.linear(self.transform(states), self.item_vectors, self.item_bias)

    def transform(self, states: Tensor) -> Tensor:
        """What is compared with the item embeddings, (..., D)."""
        return self.project_norm(F.gelu(self.project(states)))

    def forward(
        self, batch: MaskedBatch, target_index: Tensor | None = None, negatives: Negatives | None = None
    ) -> Tensor:
        """The loss (equation 8): the mean of -log p(item) over the items masked in `batch.history`, in nats. The mean
        is over all of the batch, so that a long history counts more, not first over those of each history.
        `target_index` and `negatives` are as in `ModernTransformer`. Every target must be masked in the history."""
        index = batch.target_index() if target_index is None else target_index
        labels = batch.labels.flatten()[index] - 1
        states = self.target_states(batch.history, batch.target_positions).flatten(0, 1)[index]
        return cross_entropy(self.transform(states), self.item_vectors, self.item_bias, labels, negatives)

    def target_states(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Final states (B, M, D) of `tokens` (B, T) at `positions` (B, M): those of `encode`, for less work.

        Nothing attends to the states that the last block makes, so it makes those asked for only. On a CPU a few
        histories go through the network together, as many as its cache holds, without the padding that none of them
        needs."""
        if tokens.device.type != "cpu":
            return self._target_states(tokens, positions)
        lengths = (tokens != PAD).sum(1).tolist()
        parts = []
        for rows in slices_that_fit(lengths, CACHED_FLOATS // (4 * self.settings.width)):
            unused = tokens.shape[1] - max(lengths[rows])
            parts.append(self._target_states(tokens[rows, unused:], (positions[rows] - unused).clamp(min=0)))
        return torch.cat(parts)

    def _target_states(self, tokens: Tensor, positions: Tensor) -> Tensor:
        states, visible = self.embed(tokens), (tokens != PAD)[:, None]
        for block in self.blocks[:-1]:
            states = block(states, states, visible)
        rows = positions + tokens.shape[1] * torch.arange(len(tokens), device=tokens.device)[:, None]
        queries = F.embedding(rows, states.flatten(0, 1))  # take_along_dim, in a quarter of its time
        return self.blocks[-1](queries, states, visible)

    def user_vectors(self, histories: Sequences) -> Tensor:
        """What is compared with the item embeddings, (B, D), at the [MASK] appended to each history (section 3.6)."""
        history = append_mask(histories, self.settings.max_length - 1).history.to(self.device)
        tokens = F.pad(history, (0, 1), value=self.mask_token)
        newest = torch.full((len(tokens), 1), tokens.shape[1] - 1, device=self.device)
        return self.transform(self.target_states(tokens, newest)[:, 0])
