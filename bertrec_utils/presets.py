"""Every setting of a run, in one frozen dataclass; the six named presets; the recipes a preset can be trained by."""

import os
from dataclasses import dataclass, replace

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Preset:
    """All settings of one run. `get_preset` returns the named ones; `dataclasses.replace` makes variants.

    A setting that makes no sense is a ValueError.
    """

    name: str
    release: str = "ml-latest-2k"
    ratings_file: str | None = None  # a log of your own, read instead of the release
    items_file: str | None = None  # the titles of that log
    max_users: int | None = None  # keep only the first users
    min_item_ratings: int = 5  # items with fewer ratings are dropped

    paper: bool = False  # the network as the paper describes it (paper.py), not the one of model.py
    history_length: int = 200  # the newest films that the model reads
    width: int = 64
    layers: int = 2
    heads: int = 2
    near: int = 4  # so many films just before a place are added to it in each layer
    dropout: float = 0.2
    warm_start: bool = True  # film vectors start from co-occurrence counts, else at random

    next_only: float = 0.5  # share of the histories with next-film questions only
    cloze_only: float = 0.0  # share of the histories with cloze questions only; the rest has both
    mask_ratio: float = 0.3  # share of a history's prefix that is hidden and asked about
    next_ratio: float = 0.5  # share of the films after the prefix that are asked about
    last_only: float = 0.0  # share of the histories with no question but the cloze of their newest film
    causal: bool = False  # in the test, too, each film of a history sees only those before it

    negatives: int = 0  # items that stand for all in the loss of a batch; 0: no sample, the loss is over all items
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup_share: float = 0.05  # share of all steps in which the learning rate climbs
    epochs: int = 60
    patience: int = 10  # epochs without a better validation NDCG@10 before training stops
    precision: str = "auto"  # of matrix products in training: float32, bfloat16, or bfloat16 where that is faster
    validation_users: int = 10_000  # at most this many users are ranked after each epoch

    def __post_init__(self):
        counts = ("min_item_ratings", "history_length", "width", "layers", "heads", "batch_size", "epochs")
        for name in (*counts, "patience", "validation_users"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        self._require("max_users", self.max_users is None or self.max_users >= 1, "None or at least 1")
        for name in ("next_only", "cloze_only", "mask_ratio", "next_ratio", "last_only", "warmup_share"):
            self._require(name, 0 <= getattr(self, name) <= 1, "from 0 to 1")
        self._require("history_length", self.history_length >= 1 + self.paper, "at least 2 for the paper's network")
        self._require("causal", not (self.causal and self.paper), "false for the paper's network")
        self._require("negatives", self.negatives >= 0, "at least 0")
        self._require("near", self.near >= 0, "at least 0")
        self._require("dropout", 0 <= self.dropout < 1, "at least 0 and below 1")
        self._require("cloze_only", self.next_only + self.cloze_only <= 1, "at most 1 - next_only")
        self._require("learning_rate", self.learning_rate > 0, "above 0")
        self._require("weight_decay", self.weight_decay >= 0, "at least 0")
        self._require("precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        self._require("width", self.width % (2 * self.heads) == 0, f"a multiple of 2 x {self.heads} heads")

    def _require(self, name, holds, rule):
        if not holds:
            raise ValueError(f"the setting {name} is {getattr(self, name)}; it must be {rule}")


TUNED = {"width": 128, "heads": 4, "next_ratio": 1.0, "learning_rate": 1e-3}
LARGE = {"width": 128, "heads": 4, "negatives": 1024, "batch_size": 256, "epochs": 10, "patience": 2}

PRESETS = {
    preset.name: preset
    for preset in (
        Preset("tiny", max_users=120, history_length=50, width=32, epochs=3, batch_size=32),
        Preset("small", **TUNED, batch_size=16, epochs=8),
        Preset("ml-1m", "ml-1m", **TUNED, batch_size=32, epochs=18),
        *(Preset(name, name, **LARGE) for name in ("ml-20m", "ml-25m", "ml-32m")),
    )
}


SASREC = {"next_only": 1.0, "causal": True}
PAPER = {
    "paper": True,
    "width": 64,
    "heads": 2,
    "near": 0,
    "next_only": 0.0,
    "cloze_only": 1.0,
    "mask_ratio": 0.2,
    "last_only": 0.1,
    "patience": 20,
}
COLD = {"warm_start": False}

RECIPES = {
    "ours": {},
    "sasrec": SASREC | COLD,
    "sasrec-warm": SASREC,
    "bert4rec-paper": PAPER | COLD,
    "bert4rec-paper-warm": PAPER,
}
# a random start takes longer, and so does the cloze, which asks fewer questions a pass
EPOCHS = {
    ("small", "sasrec"): 32,
    ("small", "bert4rec-paper"): 40,
    ("small", "bert4rec-paper-warm"): 40,
    ("ml-1m", "sasrec"): 36,
    ("ml-1m", "bert4rec-paper"): 100,
    ("ml-1m", "bert4rec-paper-warm"): 100,
}


def get_preset(name: str | None = None, recipe: str = "ours") -> Preset:
    """The preset called `name`, or the one `BERTREC_PRESET` names, or `small`, with the settings of `recipe`.

    ours: cloze and next-film questions in one pass. sasrec: next-film questions only, and a history that is read from
    left to right (Kang & McAuley, 2018) by our blocks. bert4rec-paper: the paper's network and its cloze. The last two
    start at random, or, called -warm, from counts. ValueError if there is no such preset or recipe.
    """
    name = name or os.environ.get("BERTREC_PRESET") or "small"
    if name not in PRESETS:
        raise ValueError(
            f"there is no preset {name!r}; choose one of {', '.join(PRESETS)} (BERTREC_PRESET or --preset)"
        )
    if recipe not in RECIPES:
        raise ValueError(f"there is no recipe {recipe!r}; choose one of {', '.join(RECIPES)} (--recipe)")
    preset = replace(PRESETS[name], **RECIPES[recipe])
    return replace(preset, epochs=EPOCHS.get((name, recipe), preset.epochs))
