"""BERT4Rec (Sun et al., CIKM 2019) from PyTorch parts.

Shapes: B users, T places of the history, K questions per user, Q places that look, D width, H heads, V items.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .cpu import Dropout, attend, rows_at_once
from .losses import Negatives, cross_entropy
from .presets import Preset
from .questions import Questions, append_mask
from .sequences import PAD, Sequences


class Layout(NamedTuple):
    """Where the N = T + K states of a batch stand, the history's first, and what the last Q of them look at."""

    rotation: torch.Tensor  # (B, N, 1, D / H / 2) complex: `rotations` of their places
    asked: torch.Tensor  # (B, K) int64: the places of the questions
    shown: torch.Tensor  # (B, T, 1) bool: neither PAD nor hidden
    visible: torch.Tensor  # (B, 1, Q, T) bool


def rotations(places: torch.Tensor, pairs: int) -> torch.Tensor:
    """Unit complex numbers (B, Q, 1, pairs) for `places` (B, Q): the rotary positions of Su et al. (2021, equation 34).

    Their angles grow with the place, at a speed of its own for each pair of coordinates. They are float32 whatever the
    precision of the model: half of it could not tell neighbouring places of a long history apart.
    """
    speeds = 1000.0 ** -(torch.arange(pairs, dtype=torch.float32, device=places.device) / pairs)  # radians per place
    angles = places[:, :, None, None] * speeds
    return torch.polar(torch.ones_like(angles), angles)


def rotate(vectors: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Turn neighbouring coordinates of `vectors` (B, Q, H, D / H), taken as complex numbers, by `rotations`."""
    pairs = torch.view_as_complex(vectors.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(vectors.dtype)


class Attention(nn.Module):
    """Multi-head attention (section 3.3, equations 1-2) with rotary positions.

    Rotating queries and keys by their places makes a match depend on how far apart the two are.
    """

    def __init__(self, preset: Preset):
        super().__init__()
        self.heads = preset.heads
        self.query = nn.Linear(preset.width, preset.width)
        self.key_value = nn.Linear(preset.width, 2 * preset.width)
        self.project = nn.Linear(preset.width, preset.width)

    def forward(
        self, asking: torch.Tensor, history: torch.Tensor, visible: torch.Tensor, rotation: torch.Tensor
    ) -> torch.Tensor:
        """What `asking` (B, Q, D) gathers from `history` (B, T, D) where `visible` (B, 1, Q, T) says so: (B, Q, D).

        `rotation` holds the places of the history first and those of `asking` last.
        """
        query, key, value = self.heads_of(asking, history, rotation)
        # No dropout on the weights: it would rule out the fused kernels, on the CPU above all.
        gathered = attend(query, key, value, visible)
        return self.project(gathered.transpose(1, 2).flatten(2))

    def heads_of(
        self, asking: torch.Tensor, history: torch.Tensor, rotation: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rotated queries (B, H, Q, D / H), rotated keys and values (B, H, T, D / H)."""
        parts = (self.query(asking), *self.key_value(history).chunk(2, dim=-1))
        query, key, value = (part.unflatten(-1, (self.heads, -1)) for part in parts)
        query, key = rotate(query, rotation[:, -query.shape[1] :]), rotate(key, rotation[:, : key.shape[1]])
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)


class Near(nn.Module):
    """Adds up the few films just before each place, every coordinate of each with a learned weight that starts at 0.

    A depthwise causal convolution, as Primer has after its queries, keys and values (So et al., 2021, section 3). What
    comes next depends most on the last films, and attention, which has the whole history to look at, is slow to learn
    that.
    """

    def __init__(self, preset: Preset):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(preset.near, preset.width), requires_grad=preset.near > 0)

    def forward(self, history: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        """What stands before each place of `history` (B, T, D), then before the places `asked` (B, K): (B, T + K, D).

        Rows of `history` that nobody may see must be zero.
        """
        (batch, length, width), near = history.shape, len(self.weight)
        padded = F.pad(history, (0, 0, near, 0))
        before = history.new_zeros(batch, length + 1, width)  # a question may come after the newest film
        for back, weight in enumerate(self.weight, start=1):
            before = before + weight * padded[:, near - back : near - back + length + 1]
        rows = asked + (length + 1) * torch.arange(batch, device=asked.device)[:, None]
        return torch.cat([before[:, :-1], F.embedding(rows, before.flatten(0, 1))], 1)


class Block(nn.Module):
    """A transformer layer (section 3.3), layer norm first: it trains without a long warm-up. `Near` is an addition."""

    def __init__(self, preset: Preset):
        super().__init__()
        self.attention_norm = nn.LayerNorm(preset.width)
        self.near = Near(preset)
        self.attention = Attention(preset)
        self.feed_forward_norm = nn.LayerNorm(preset.width)
        self.expand = nn.Linear(preset.width, 4 * preset.width)
        self.contract = nn.Linear(4 * preset.width, preset.width)
        self.dropout = Dropout(preset.dropout)

    def forward(self, states: torch.Tensor, layout: Layout) -> torch.Tensor:
        """New states (B, Q, D) of the last Q of `states` (B, N, D). They look at the first T, the history."""
        asking, history = slice(-layout.visible.shape[2], None), slice(layout.visible.shape[3])
        normed = self.attention_norm(states)
        near = self.near(normed[:, history] * layout.shown, layout.asked)
        normed = normed + near
        gathered = self.attention(normed[:, asking], normed[:, history], layout.visible, layout.rotation)
        states = states[:, asking] + near[:, asking] + self.dropout(gathered)
        wide = F.gelu(self.expand(self.feed_forward_norm(states)))
        return states + self.dropout(self.contract(wide))


class BERT4Rec(nn.Module):
    """Names the films behind the [MASK]s of a history.

    Tokens: PAD 0, items 1..V, [MASK] V + 1. Scores have V columns, column j for token j + 1: PAD and [MASK] have none,
    so they can never be recommended. The output weights are the item embeddings (equation 7).
    """

    def __init__(self, item_count: int, preset: Preset):
        super().__init__()
        self.item_count, self.preset = item_count, preset
        self.item_embedding = nn.Embedding(item_count + 2, preset.width, padding_idx=PAD)
        self.embedding_dropout = Dropout(preset.dropout)
        self.blocks = nn.ModuleList(Block(preset) for _ in range(preset.layers))
        self.final_norm = nn.LayerNorm(preset.width)
        self.item_bias = nn.Parameter(torch.zeros(item_count))
        self.apply(initialise)

    @property
    def mask_token(self) -> int:
        return self.item_count + 1

    @property
    def device(self) -> torch.device:
        return self.item_bias.device

    def forward(
        self, questions: Questions, used: torch.Tensor | None = None, negatives: Negatives | None = None
    ) -> torch.Tensor:
        """The loss: mean cross-entropy over all questions, in nats (equation 8), or its estimate from `negatives`.

        `used` (N,) int64 is `questions.used()`, found beforehand: a GPU would have to stop for it.
        """
        used = questions.used() if used is None else used
        states, labels = self.states(questions).flatten(0, 1)[used], questions.labels.flatten()[used] - 1
        return cross_entropy(states, self.item_embedding.weight[1:-1], self.item_bias, labels, negatives)

    def states(self, questions: Questions) -> torch.Tensor:
        """Final states (B, K, D) of the questions."""
        states, layout = self.start(questions)
        rows = rows_at_once(self.device, states.shape[1])
        parts = zip(states.split(rows), *(part.split(rows) for part in layout), strict=True)
        return torch.cat([self.finish(part, Layout(*its_layout)) for part, *its_layout in parts])

    def finish(self, states: torch.Tensor, layout: Layout) -> torch.Tensor:
        """Final states (B, K, D) of the questions, from what `start` has made.

        The last block makes new states for the questions only: nothing looks at the history's states after it.
        """
        states = self.embedding_dropout(states)
        for block in self.blocks[:-1]:
            states = block(states, layout)
        asked = layout.visible[:, :, -layout.asked.shape[1] :]
        return self.final_norm(self.blocks[-1](states, layout._replace(visible=asked)))

    def start(self, questions: Questions) -> tuple[torch.Tensor, Layout]:
        """The states (B, T + K, D) of history and questions before the first block, and their layout."""
        history, asked = questions.history, questions.places
        masks = torch.full_like(asked, self.mask_token)
        states = self.item_embedding(torch.cat([history, masks], 1))
        places = torch.cat([torch.arange(history.shape[1], device=history.device).expand_as(history), asked], 1)
        rotation = rotations(places, self.preset.width // self.preset.heads // 2)
        shown = questions.is_shown(self.mask_token)
        return states, Layout(rotation, asked, shown[:, :, None], questions.attention_mask(self.mask_token))

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Scores of all items, (..., V), from final states (..., D)."""
        return F.linear(states, self.item_embedding.weight[1:-1], self.item_bias)

    @torch.inference_mode()
    def score(self, histories: Sequences) -> np.ndarray:
        """Scores (B, V) float32 of every item as the next one after each history."""
        questions = append_mask(histories, self.preset.history_length, self.preset.causal).to(self.device)
        with evaluating(self):
            return self.logits(self.states(questions)[:, 0]).float().cpu().numpy()


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout inside the `with`; afterwards the model trains or evaluates as it did before."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def initialise(module: nn.Module) -> None:
    """Truncated N(0, .02) as in BERT, zero biases. With N(0, 1) and tied weights the loss would start near 25."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx].data)
