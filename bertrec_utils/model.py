"""BERT4Rec (Sun et al., CIKM 2019) from PyTorch parts.

Shapes: B users, T places of the history, K questions a user, D width, H heads, V items.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .loss import ChunkedCrossEntropy
from .masking import Questions, question_batch
from .sequences import PAD, Sequences


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model. `item_count` is V; of longer histories, the newest `history_length` films are read."""

    item_count: int
    history_length: int = 200
    width: int = 64
    layers: int = 2
    heads: int = 2
    dropout: float = 0.2


class Attention(nn.Module):
    """Multi-head attention (section 3.3, equations 1-2) with rotary positions (Su et al., 2021, equation 34).

    A rotation by place turns the match of a query and a key into a function of how far apart they are.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width)
        self.key_value = nn.Linear(config.width, 2 * config.width)
        self.project = nn.Linear(config.width, config.width)
        pairs = config.width // config.heads // 2
        self.register_buffer("speeds", 1000.0 ** -(torch.arange(pairs) / pairs), persistent=False)  # radians a place

    def forward(self, asking, context, visible, asking_places, context_places) -> torch.Tensor:
        """What `asking` (B, Q, D) finds in `context` (B, T, D) where `visible` (B, 1, Q, T): (B, Q, D)."""
        query, key, value = self.heads_of(asking, context, asking_places, context_places)
        # No dropout on the weights: it would rule out the fused kernels, on the CPU above all.
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        return self.project(found.transpose(1, 2).flatten(2))

    def heads_of(self, asking, context, asking_places, context_places):
        """Rotated queries (B, H, Q, D / H), rotated keys and values (B, H, T, D / H)."""
        parts = (self.query(asking), *self.key_value(context).chunk(2, dim=-1))
        query, key, value = (part.unflatten(-1, (self.heads, -1)) for part in parts)
        query, key = self.rotate(query, asking_places), self.rotate(key, context_places)
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def rotate(self, vectors: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Turn pairs of coordinates of `vectors` (B, Q, H, D / H), as complex numbers, by an angle that grows with the
        place (B, Q)."""
        angles = places[:, :, None, None] * self.speeds
        pairs = torch.view_as_complex(vectors.unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)

    def weights(self, asking, context, visible, asking_places, context_places) -> torch.Tensor:
        """The attention weights themselves, (B, H, Q, T), for looking at; `forward` never forms them."""
        query, key, _ = self.heads_of(asking, context, asking_places, context_places)
        scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
        return scores.masked_fill(~visible, -torch.inf).softmax(-1)


class Dropout(nn.Module):
    """Dropout; on the CPU with a random byte an element, drawn eight at a time, and the rate rounded to 1/256.

    PyTorch's Bernoulli draws are slow there: benchmarks/step_parts.py compares.
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

    def forward(self, states: torch.Tensor, places: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """New states (B, Q, D) of the last Q of `states` (B, N, D) at `places` (B, N).

        They look at the first T, the history, where `visible` (B, 1, Q, T) says so.
        """
        asking, history = slice(-visible.shape[2], None), slice(visible.shape[3])
        normed = self.attention_norm(states)
        found = self.attention(normed[:, asking], normed[:, history], visible, places[:, asking], places[:, history])
        states = states[:, asking] + self.dropout(found)
        wide = F.gelu(self.expand(self.feed_forward_norm(states)))
        return states + self.dropout(self.contract(wide))


class BERT4Rec(nn.Module):
    """Names the films behind the [MASK]s of a history.

    Tokens: PAD 0, items 1..V, [MASK] V + 1. Scores have V columns, column j for token j + 1: PAD and [MASK] have none,
    so they can never be recommended. The output weights are the item embeddings (equation 7).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        if config.width % (2 * config.heads):
            raise ValueError(f"width {config.width} is no multiple of 2 x {config.heads} heads; change one of them")
        self.config = config
        self.item_embedding = nn.Embedding(config.item_count + 2, config.width, padding_idx=PAD)
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

    def forward(self, questions: Questions) -> torch.Tensor:
        """Final states (B, K, D) of the questions.

        The last block makes new states for the questions only: nobody looks at the history's own any more.
        """
        states, places, visible = self.start(questions)
        for block in self.blocks[:-1]:
            states = block(states, places, visible)
        asked = visible[:, :, questions.history.shape[1] :]
        return self.final_norm(self.blocks[-1](states, places, asked))

    def start(self, questions: Questions):
        """Of history and questions: states (B, T + K, D), places (B, T + K), what each sees (B, 1, T + K, T)."""
        history, history_sees, asked, sees, _ = questions
        masks = torch.full_like(asked, self.mask_token)
        states = self.embedding_dropout(self.item_embedding(torch.cat([history, masks], 1)))
        places = torch.arange(history.shape[1], device=history.device).expand_as(history)
        visible = visible_films(history, torch.cat([history_sees, sees], 1), self.mask_token)
        return states, torch.cat([places, asked], 1), visible

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Scores of all items, (..., V), from final states (..., D)."""
        return F.linear(states, self.item_embedding.weight[1:-1], self.item_bias)

    def loss(self, questions: Questions) -> torch.Tensor:
        """Mean cross-entropy over all questions (equation 8)."""
        used = questions.labels != PAD
        weight = self.item_embedding.weight[1:-1]
        return ChunkedCrossEntropy.apply(self(questions)[used], weight, self.item_bias, questions.labels[used] - 1)

    @torch.inference_mode()
    def score(self, histories: Sequences) -> np.ndarray:
        """Scores (B, V) float32 of every item as the next one after each history."""
        self.eval()
        questions = question_batch(histories, self.config.history_length).to(self.device)
        return self.logits(self(questions)[:, 0]).cpu().numpy()

    @torch.inference_mode()
    def attention_maps(self, questions: Questions) -> list[torch.Tensor]:
        """One (B, H, T + K, T) tensor of weights a block: where each place, then each question, looks."""
        self.eval()
        length = questions.history.shape[1]
        states, places, visible = self.start(questions)
        maps = []
        for block in self.blocks:
            context = block.attention_norm(states)
            maps.append(block.attention.weights(context, context[:, :length], visible, places, places[:, :length]))
            states = block(states, places, visible)
        return maps


def visible_films(history: torch.Tensor, sees: torch.Tensor, mask_token: int) -> torch.Tensor:
    """The attention mask, (B, 1, Q, T): True for films, not PAD or [MASK], at places of `history` below `sees` (B, Q).

    Who would see nothing looks at place 0, a PAD or [MASK] then: no softmax runs over an empty set and yields NaN.
    """
    is_shown = (history != PAD) & (history != mask_token)
    places = torch.arange(history.shape[1], device=history.device)
    visible = is_shown[:, None, :] & (places < sees[:, :, None])
    visible[:, :, 0] |= ~visible.any(-1)
    return visible[:, None]


def initialise(module: nn.Module) -> None:
    """Truncated N(0, .02) as in BERT, zero biases. With N(0, 1) and tied weights the loss would start near 25."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx].data)
