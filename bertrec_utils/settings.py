"""Every setting of a run - its data, its model, its training - and the presets and recipes that set them."""

import math
import numbers
import os
import typing
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypedDict

PRECISIONS = ("auto", "float32", "bfloat16")
NETWORKS = ("bert4rec", "modern")
STARTS = ("random", "counts")
REPEATS = ("first", "keep")


@dataclass(frozen=True)
class DataSettings:
    """Which ratings are read, and which of them are kept."""

    release: str | None = "ml-5k"  # none: of a model that was trained on a data frame, which is not kept
    ratings_file: str | None = None  # a log of your own, read instead of the release
    items_file: str | None = None  # the titles of that log
    columns: str | None = None  # what their columns are: user=who item=what timestamp=when
    max_users: int | None = None  # keep the first users only
    min_item_ratings: int = 5  # drop items with fewer ratings
    repeats: str | None = "first"  # first: an item counts once for a user; keep: every row does; None: as in the log
    time_split: float | None = None  # of your own log: train before this quantile of its timestamps, test after it

    def __post_init__(self) -> None:
        _require(self, "max_users", self.max_users is None or self.max_users >= 1, "none or at least 1")
        _require(self, "min_item_ratings", self.min_item_ratings >= 1, "at least 1")
        _require(self, "repeats", self.repeats in (*REPEATS, None), f"one of {', '.join(REPEATS)}, or none")
        in_time = self.time_split is None or (self.ratings_file is not None and 0 < self.time_split < 1)
        _require(self, "time_split", in_time, "none, or between 0 and 1 for a log of your own")

    @property
    def is_own(self) -> bool:
        """Whether the ratings are a log of your own, in a file or a data frame."""
        return self.ratings_file is not None or self.release is None


class OwnLog(TypedDict, total=False):
    """Where a log of your own is now, if it has moved since the training, and the names of its columns."""

    ratings_file: str
    items_file: str
    columns: str


@dataclass(frozen=True)
class ModelSettings:
    """The shape of a network: all that is needed to build one, beside the number of items."""

    network: str = "modern"  # or bert4rec
    max_length: int = 200  # the model reads this many of the newest items of a history
    width: int = 64  # of the hidden states
    layers: int = 2
    heads: int = 2
    conv_size: int = 4  # previous positions in the causal convolution of a modern block; 0: no convolution
    dropout: float = 0.2
    causal: bool = False  # in the test each position sees only those up to itself; in training p_causal decides

    def __post_init__(self) -> None:
        _require(self, "network", self.network in NETWORKS, f"one of {', '.join(NETWORKS)}")
        for name in ("width", "layers", "heads"):
            _require(self, name, getattr(self, name) >= 1, "at least 1")
        _require(self, "width", self.width % (2 * self.heads) == 0, f"a multiple of 2 x {self.heads} heads")
        shortest = 2 if self.network == "bert4rec" else 1  # its [MASK] takes a position
        _require(self, "max_length", self.max_length >= shortest, f"at least {shortest}")
        _require(self, "conv_size", self.conv_size >= 0, "at least 0")
        _require(self, "dropout", 0 <= self.dropout < 1, "at least 0 and below 1")
        _require(self, "causal", not (self.causal and self.network == "bert4rec"), "false for bert4rec")


@dataclass(frozen=True)
class TrainingSettings:
    """What a model is trained to predict, from which start, and how it is optimised."""

    start: str = "counts"  # item embeddings come from co-occurrence counts, or are random

    p_causal: float = 0.5  # share of the histories with next-item targets only
    p_cloze: float = 0.0  # share of the histories with masked items only; the rest have both
    mask_ratio: float = 0.3  # share of the items of a bidirectional prefix that are masked
    next_ratio: float = 0.5  # share of the positions after that prefix that are targets
    p_mask_last: float = 0.0  # share of the histories whose only target is the newest item, masked

    negatives: int = 0  # items sampled for the softmax, anew for every four histories; 0: it is over all items
    batch_size: int = 128  # users
    bucket_by_length: bool = True  # a batch is of histories of similar length; false: of users drawn at random
    learning_rate: float = 2e-3  # at its peak
    weight_decay: float = 0.01
    warmup_fraction: float = 0.05  # share of all steps in which the learning rate rises
    epochs: int = 60
    precision: str = "auto"  # of matrix products: float32, bfloat16, or bfloat16 where that is faster
    validation_users: int = 10_000  # at most this many users, sampled, are ranked after each epoch

    def __post_init__(self) -> None:
        _require(self, "start", self.start in STARTS, f"one of {', '.join(STARTS)}")
        for name in ("p_causal", "p_cloze", "mask_ratio", "next_ratio", "p_mask_last", "warmup_fraction"):
            _require(self, name, 0 <= getattr(self, name) <= 1, "from 0 to 1")
        _require(self, "p_cloze", self.p_causal + self.p_cloze <= 1, "at most 1 - p_causal")
        for name in ("batch_size", "epochs", "validation_users"):
            _require(self, name, getattr(self, name) >= 1, "at least 1")
        _require(self, "negatives", self.negatives >= 0, "at least 0")
        _require(self, "learning_rate", self.learning_rate > 0, "above 0")
        _require(self, "weight_decay", self.weight_decay >= 0, "at least 0")
        _require(self, "precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")


def _require(settings: Any, name: str, holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(f"the setting {name} is {getattr(settings, name)}; it must be {rule}")


NUMBERS: dict[type, tuple[type, str]] = {
    bool: (bool, "true or false"),
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
}


def _plain(name: str, value: Any, hint: Any) -> Any:
    """`value` as Python's own number or bool where the type `hint` of the setting asks for one, since neither JSON nor
    `torch.load` takes those of NumPy. ValueError if it is of another type, or not finite."""
    kind, *or_none = typing.get_args(hint) or (hint,)  # of `int | None` both parts
    if kind not in NUMBERS or (value is None and or_none):
        return value
    abstract, expected = NUMBERS[kind]
    number = value.item() if getattr(value, "shape", None) == () else value  # a scalar of NumPy or PyTorch
    is_of_kind = isinstance(number, abstract) and isinstance(number, bool) == (kind is bool)
    if not is_of_kind or not -math.inf < number < math.inf:
        raise ValueError(f"the setting {name} is {value!r}; it must be {expected}")
    return kind(number)


@dataclass(frozen=True)
class Settings:
    """All settings of one run. `get_preset` makes the named ones, `change` makes variants."""

    preset: str
    recipe: str = "modern-both"
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        if self.model.network == "bert4rec" and self.training.p_cloze < 1:
            raise ValueError("the network bert4rec predicts masked items only; set p_cloze=1 and p_causal=0")

    def change(self, **values: Any) -> "Settings":
        """A copy with other values, each named as in its group: `change(width=64, epochs=3)`. ValueError if there is no
        such setting or its value makes no sense."""
        groups: dict[str, dict[str, Any]] = {name: {} for name in GROUPS}
        for name, value in values.items():
            group, hint = _group_and_type(name)
            groups[group][name] = _plain(name, value, hint)
        return replace(self, **{name: replace(getattr(self, name), **changes) for name, changes in groups.items()})

    def flat(self) -> dict[str, Any]:
        """Every setting by its name."""
        return asdict(self.data) | asdict(self.model) | asdict(self.training)

    @property
    def start(self) -> str:
        return self.training.start

    @property
    def name(self) -> str:
        """What the run is called in runs/ and results/: small, small-bert4rec, small-modern-next-random."""
        return self.preset + suffix(self.recipe, self.start)


GROUPS: dict[str, type] = {"data": DataSettings, "model": ModelSettings, "training": TrainingSettings}
FIELDS = {field.name: (name, field.type) for name, group in GROUPS.items() for field in fields(group)}


def _group_and_type(setting: str) -> tuple[str, Any]:
    if setting not in FIELDS:
        raise ValueError(f"there is no setting {setting!r}; the settings are {', '.join(FIELDS)}")
    return FIELDS[setting]


def parse_changes(texts: Iterable[str]) -> dict[str, Any]:
    """The values of `NAME=VALUE` texts, as `Settings.change` takes them; "none" stands for None. ValueError if a text
    has another form, names no setting, or its value is of another type."""
    changes = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"{text!r} sets nothing; write it as NAME=VALUE, for example epochs=3")
        changes[name] = _parse(name, value, _group_and_type(name)[1])
    return changes


def _parse(name: str, text: str, hint: Any) -> Any:
    kind, *or_none = typing.get_args(hint) or (hint,)  # of `int | None` both parts
    if or_none and text.lower() == "none":
        return None
    try:
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise ValueError(f"the setting {name} is {text!r}; it must be {NUMBERS[kind][1]}") from None


TUNED = {"width": 128, "heads": 4, "next_ratio": 1.0, "learning_rate": 1e-3}
LARGE = {"width": 128, "heads": 4, "negatives": 1024, "batch_size": 256, "epochs": 10}
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"max_users": 120, "max_length": 50, "width": 32, "epochs": 3, "batch_size": 32},
    "small": TUNED | {"max_users": 2_148, "batch_size": 16, "epochs": 8},  # of ml-5k, those that ml-latest gave
    "medium": TUNED | {"batch_size": 32, "epochs": 12},  # all of ml-5k
    "ml-1m": TUNED | {"release": "ml-1m", "batch_size": 32, "epochs": 18},
    "movietweetings": TUNED | {"release": "movietweetings", "batch_size": 16, "epochs": 8},  # as small
    "beauty": TUNED | {"release": "beauty", "min_item_ratings": 1, "batch_size": 128, "epochs": 8},
    **{name: LARGE | {"release": name} for name in ("ml-20m", "ml-25m", "ml-32m")},
}

CLOZE = {"p_causal": 0.0, "p_cloze": 1.0, "p_mask_last": 0.1}
RECIPES: dict[str, dict[str, Any]] = {  # network-objective
    "bert4rec": {"network": "bert4rec", "conv_size": 0, **CLOZE, "bucket_by_length": False} | {"learning_rate": 2e-3},
    "modern-cloze": CLOZE,
    "modern-next": {"p_causal": 1.0, "causal": True, "next_ratio": 1.0},
    "modern-both": {},
}
DEFAULT_RECIPE = "modern-both"
DEFAULT_STARTS = dict.fromkeys(RECIPES, "counts") | {"bert4rec": "random"}  # the paper's
# What a recipe, or a recipe from this start, changes in a preset. A random start takes longer, and so does the cloze,
# which has fewer targets in a pass.
CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "small": {
        "bert4rec": {"epochs": 100},
        "bert4rec-random": {"learning_rate": 1e-3},
        "modern-cloze": {"epochs": 16},
        "modern-next-random": {"epochs": 32},
    },
    "medium": {
        "bert4rec": {"epochs": 80},
        "modern-cloze": {"epochs": 24},
        "modern-next-random": {"epochs": 24},
    },
    "ml-1m": {
        "bert4rec": {"epochs": 100},
        "modern-cloze": {"epochs": 60},
        "modern-next-random": {"epochs": 36},
    },
}
CHANGES["movietweetings"] = CHANGES["small"]
CHANGES["beauty"] = {recipe: dict(changes) for recipe, changes in CHANGES["small"].items()}
CHANGES["beauty"]["bert4rec"]["epochs"] = 40  # about as many steps as there


def get_preset(name: str | None = None, recipe: str = DEFAULT_RECIPE, start: str | None = None) -> Settings:
    """The settings of preset `name`, else of the one `BERTREC_PRESET` names, else of `small`, trained by `recipe`.

    A recipe is a network and an objective. `bert4rec`: the network and the cloze of Sun et al. (CIKM 2019).
    `modern-cloze`: the same objective in the `ModernTransformer`. `modern-next`: every next item, read from left to
    right, as SASRec is trained (Kang & McAuley, ICDM 2018). `modern-both`: both objectives in one pass.
    `start` is "counts" or "random" (default: random for bert4rec, else counts).
    ValueError if there is no such preset, recipe or start.
    """
    name = name or os.environ.get("BERTREC_PRESET") or "small"
    if name not in PRESETS:
        known = f"{', '.join(PRESETS)} (BERTREC_PRESET or --preset)"
        raise ValueError(f"there is no preset {name!r}; choose one of {known}")
    if recipe not in RECIPES:
        raise ValueError(f"there is no recipe {recipe!r}; choose one of {', '.join(RECIPES)} (--recipe)")
    start = start or DEFAULT_STARTS[recipe]
    of_preset = CHANGES.get(name, {})
    changes = of_preset.get(recipe, {}) | of_preset.get(f"{recipe}-{start}", {})
    return Settings(name, recipe).change(**PRESETS[name] | RECIPES[recipe] | changes, start=start)


def suffix(recipe: str, start: str) -> str:
    """The part of a run's name after its preset: "" for the default recipe from its default start."""
    parts = [recipe if recipe != DEFAULT_RECIPE else "", start if start != DEFAULT_STARTS.get(recipe) else ""]
    return "".join(f"-{part}" for part in parts if part)
