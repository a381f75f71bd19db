"""BERT4Rec as the paper has it (Sun et al., CIKM 2019, sections 3.2 to 3.6): the plain version, to be read first.

Not as in the paper: places count back from the newest film, which is always at the last one; embeddings have dropout;
and training is that of all recipes (AdamW at a rate that climbs and falls, any window of a long history).

Shapes: B users, T places, K questions per user, D width, V items. The default network is that of model.py.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .losses import Negatives, cross_entropy
from .model import BERT4Rec, evaluating, initialise
from .presets import Preset
from .questions import Questions, append_mask
from .sequences import PAD, Sequences


class PaperBlock(nn.Module):
    """A transformer layer (section 3.3). Every film looks at every film, on both sides, and at the [MASK]s too."""

    def __init__(self, preset: Preset):
        super().__init__()
        self.attention = nn.MultiheadAttention(preset.width, preset.heads, batch_first=True)  # equations 1 and 2
        self.expand = nn.Linear(preset.width, 4 * preset.width)
        self.contract = nn.Linear(4 * preset.width, preset.width)
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(preset.width), nn.LayerNorm(preset.width)
        self.dropout = nn.Dropout(preset.dropout)

    def forward(self, states: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        """New states (B, T, D); nobody looks where `padding` (B, T) is true."""
        gathered, _ = self.attention(states, states, states, key_padding_mask=padding, need_weights=False)
        states = self.attention_norm(states + self.dropout(gathered))  # equation 6: the norm comes after the sum
        processed = self.contract(F.gelu(self.expand(states)))  # equation 3
        return self.feed_forward_norm(states + self.dropout(processed))  # equation 5


class PaperBERT4Rec(nn.Module):
    """A history in which some films are replaced by [MASK] goes in; at each [MASK] a score of every film comes out.

    Tokens: PAD 0, items 1..V, [MASK] V + 1. Column j of the scores belongs to token j + 1.
    """

    mask_token, device = BERT4Rec.mask_token, BERT4Rec.device

    def __init__(self, item_count: int, preset: Preset):
        super().__init__()
        self.item_count, self.preset = item_count, preset
        self.item_embedding = nn.Embedding(item_count + 2, preset.width, padding_idx=PAD)
        self.position_embedding = nn.Embedding(preset.history_length, preset.width)  # section 3.4
        self.dropout = nn.Dropout(preset.dropout)
        self.blocks = nn.ModuleList(PaperBlock(preset) for _ in range(preset.layers))
        self.project = nn.Linear(preset.width, preset.width)
        self.item_bias = nn.Parameter(torch.zeros(item_count))
        self.apply(initialise)
        for block in self.blocks:  # three matrices in one, which `initialise` does not see
            nn.init.trunc_normal_(block.attention.in_proj_weight, std=0.02, a=-0.04, b=0.04)

    def states(self, tokens: torch.Tensor) -> torch.Tensor:
        """Final states (B, T, D) of `tokens` (B, T), T at most the history length. The newest place is the last."""
        places = torch.arange(-tokens.shape[1], 0, device=tokens.device) + self.preset.history_length
        states = self.dropout(self.item_embedding(tokens) + self.position_embedding(places))  # section 3.4
        for block in self.blocks:
            states = block(states, padding=tokens == PAD)
        return states

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Scores (..., V) from final states (..., D): equation 7, before the softmax. The film vectors are shared."""
        return F.linear(F.gelu(self.project(states)), self.item_embedding.weight[1:-1], self.item_bias)

    def forward(
        self, questions: Questions, used: torch.Tensor | None = None, negatives: Negatives | None = None
    ) -> torch.Tensor:
        """The loss (equation 8): the mean of -log p(film) over the films hidden in `questions.history`, in nats.

        The mean is over all of the batch, so that a long history counts more, not first over those of each history.
        `used` and `negatives` as in model.py. ValueError if a question is about a film that is not hidden.
        """
        used = questions.used() if used is None else used
        rows, labels = used // questions.labels.shape[1], questions.labels.flatten()[used] - 1
        places = questions.places.flatten()[used]
        if (questions.history[rows, places] != self.mask_token).any():
            raise ValueError("the paper's network can be asked for hidden films only; set cloze_only to 1")
        asked = self.states(questions.history)[rows, places]
        if negatives is None:
            return F.cross_entropy(self.logits(asked), labels)
        asked = F.gelu(self.project(asked))
        return cross_entropy(asked, self.item_embedding.weight[1:-1], self.item_bias, labels, negatives)

    @torch.inference_mode()
    def score(self, histories: Sequences) -> np.ndarray:
        """Scores (B, V) float32 of every item as the next one: [MASK] is appended to each history (section 3.6)."""
        history = append_mask(histories, self.preset.history_length - 1).history.to(self.device)
        with evaluating(self):
            states = self.states(F.pad(history, (0, 1), value=self.mask_token))
            return self.logits(states[:, -1]).float().cpu().numpy()


def network(item_count: int, preset: Preset) -> BERT4Rec | PaperBERT4Rec:
    """The untrained network that the preset asks for."""
    return PaperBERT4Rec(item_count, preset) if preset.paper else BERT4Rec(item_count, preset)
