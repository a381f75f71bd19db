"""BERT4Rec (Sun et al., CIKM 2019) from PyTorch parts.

Shapes: B users, T positions, D width, H heads, V items, M masked positions a row.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .masking import question_batch
from .sequences import PAD, Sequences


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model. `item_count` is V; `history_length` the most positions it sees, [MASK] included."""

    item_count: int
    history_length: int = 200
    width: int = 64
    layers: int = 2
    heads: int = 2
    dropout: float = 0.2


class Attention(nn.Module):
    """Multi-head self-attention (section 3.3, equations 1-2), every position seeing both sides."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width)
        self.key_value = nn.Linear(config.width, 2 * config.width)
        self.project = nn.Linear(config.width, config.width)

    def forward(self, asking: torch.Tensor, context: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """What `asking` (B, Q, D) finds in the `visible` (B, 1, 1, T) positions of `context` (B, T, D): (B, Q, D)."""
        query, key, value = self.heads_of(asking, context)  # (B, H, Q or T, D / H)
        # No dropout on the weights: it would rule out the fused kernels, on the CPU above all.
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        return self.project(found.transpose(1, 2).flatten(2))

    def heads_of(self, asking, context):
        parts = (self.query(asking), *self.key_value(context).chunk(2, dim=-1))
        return (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)

    def weights(self, context: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """The attention weights themselves, (B, H, T, T), for looking at; `forward` never forms them."""
        query, key, _ = self.heads_of(context, context)
        scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
        return scores.masked_fill(~visible, -torch.inf).softmax(-1)


class Dropout(nn.Module):
    """Dropout; on the CPU with a random byte an element, drawn eight at a time, and the rate rounded to 1/256.

    PyTorch's Bernoulli draws there are several times slower, and took a third of a training step.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        threshold = round(256 * self.rate)
        if not self.training or threshold == 0 or states.device.type != "cpu":
            return F.dropout(states, self.rate, self.training)
        eights = torch.empty(-(-states.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = eights.view(torch.uint8)[: states.numel()].view(states.shape) >= threshold
        return states * (kept * (256 / (256 - threshold)))


class Block(nn.Module):
    """A transformer layer (section 3.3), layer norm first: it trains without a long warm-up."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.LayerNorm(config.width)
        self.expand = nn.Linear(config.width, 4 * config.width)
        self.contract = nn.Linear(4 * config.width, config.width)
        self.dropout = Dropout(config.dropout)

    def forward(self, states: torch.Tensor, visible: torch.Tensor, asked: torch.Tensor | None = None) -> torch.Tensor:
        """New states of all positions (B, T, D), or of the positions `asked` (B, M) only: (B, M, D)."""
        context = self.attention_norm(states)
        asking = context
        if asked is not None:
            states, asking = take_positions(states, asked), take_positions(context, asked)
        states = states + self.dropout(self.attention(asking, context, visible))
        wide = self.dropout(F.gelu(self.expand(self.feed_forward_norm(states))))
        return states + self.dropout(self.contract(wide))


class BERT4Rec(nn.Module):
    """Fills in the [MASK]ed items of a history.

    Tokens: PAD 0, items 1..V, [MASK] V + 1. Scores have V columns, column j for token j + 1: PAD and [MASK] have none,
    so they can never be recommended. The output weights are the item embeddings (equation 7).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        if config.width % config.heads:
            raise ValueError(f"width {config.width} cannot be shared by {config.heads} heads; make it a multiple")
        self.config = config
        self.item_embedding = nn.Embedding(config.item_count + 2, config.width, padding_idx=PAD)
        self.position_embedding = nn.Embedding(config.history_length, config.width)
        self.embedding_dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width)
        self.item_bias = nn.Parameter(torch.zeros(config.item_count))
        self.apply(initialise)

    @property
    def mask_token(self) -> int:
        return self.config.item_count + 1

    @property
    def device(self) -> torch.device:
        return self.item_bias.device

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Item plus position embeddings, (B, T, D). Positions count from the end: the newest is always the same one."""
        length = tokens.shape[1]
        if length > self.config.history_length:
            raise ValueError(
                f"{length} positions, but the model sees {self.config.history_length}; shorten the histories"
            )
        positions = self.position_embedding.weight[-length:]  # (T, D)
        return self.embedding_dropout(self.item_embedding(tokens) + positions)

    def forward(self, tokens: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        """Final states (B, M, D) at the positions `asked` (B, M) of `tokens` (B, T).

        Only these positions need the last block's queries and feed-forward layer: same numbers, much less arithmetic.
        """
        visible = visible_positions(tokens)
        states = self.embed(tokens)
        for block in self.blocks[:-1]:
            states = block(states, visible)
        return self.final_norm(self.blocks[-1](states, visible, asked))

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Scores of all items, (..., V), from final states (..., D)."""
        return F.linear(states, self.item_embedding.weight[1:-1], self.item_bias)

    def loss(self, tokens: torch.Tensor, masked: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy over the masked items (equation 8); arguments as in `ClozeBatch`."""
        is_label = labels != PAD
        states = self(tokens, masked)[is_label]  # (labels, D)
        return F.cross_entropy(self.logits(states), labels[is_label] - 1)

    @torch.inference_mode()
    def score(self, histories: Sequences) -> np.ndarray:
        """Scores (B, V) float32 of every item as the next one after each history."""
        self.eval()
        tokens = question_batch(histories, self.mask_token, self.config.history_length).to(self.device)
        last = torch.full((len(tokens), 1), tokens.shape[1] - 1, device=self.device)
        return self.logits(self(tokens, last)[:, 0]).cpu().numpy()

    @torch.inference_mode()
    def attention_maps(self, tokens: torch.Tensor) -> list[torch.Tensor]:
        """One (B, H, T, T) tensor of attention weights a block; row i says where position i looks."""
        self.eval()
        visible, states, maps = visible_positions(tokens), self.embed(tokens), []
        for block in self.blocks:
            maps.append(block.attention.weights(block.attention_norm(states), visible))
            states = block(states, visible)
        return maps


def visible_positions(tokens: torch.Tensor) -> torch.Tensor:
    """The padding mask, (B, 1, 1, T): True where attention may look. A row of nothing but PAD sees its last position,
    so that no softmax runs over an empty set and yields NaN."""
    visible = tokens != PAD
    visible[:, -1] = True
    return visible[:, None, None, :]


def take_positions(states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """`states` (B, T, D) at `positions` (B, M): (B, M, D)."""
    return states.gather(1, positions[..., None].expand(-1, -1, states.shape[-1]))


def initialise(module: nn.Module) -> None:
    """Truncated N(0, .02) as in BERT, zero biases. With N(0, 1) and tied weights the loss would start near 25."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx].data)
