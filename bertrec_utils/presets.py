"""Every setting of a run, in one frozen dataclass, and the six named presets."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """All settings of one run. `get_preset` returns the named ones; `dataclasses.replace` makes variants."""

    name: str
    release: str = "ml-latest-small"
    max_users: int | None = None  # keep only the first users of the release
    min_item_ratings: int = 5  # items with fewer ratings are dropped

    history_length: int = 200  # the newest films that the model reads
    width: int = 64
    layers: int = 2
    heads: int = 2
    dropout: float = 0.2

    mask_ratio: float = 0.3  # share of a history's prefix that is hidden and asked about
    next_ratio: float = 0.5  # share of the films after the prefix that are asked about

    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup_share: float = 0.05  # share of all steps in which the learning rate climbs
    epochs: int = 60
    patience: int = 10  # epochs without a better validation NDCG@10 before training stops
    validation_users: int = 10_000  # at most this many users are ranked after each epoch


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("tiny", max_users=120, history_length=50, width=32, epochs=3, batch_size=32),
        Preset("small", next_ratio=1.0, batch_size=64, epochs=50, patience=20),
        Preset(
            "ml-1m",
            release="ml-1m",
            width=128,
            heads=4,
            next_ratio=1.0,
            batch_size=32,
            learning_rate=1e-3,
            epochs=20,
        ),
        Preset("ml-20m", release="ml-20m", width=128, heads=4, batch_size=256, epochs=30),
        Preset("ml-25m", release="ml-25m", width=128, heads=4, batch_size=256, epochs=30),
        Preset("ml-32m", release="ml-32m", width=128, heads=4, batch_size=256, epochs=30),
    )
}


def get_preset(name: str | None = None) -> Preset:
    """The preset called `name`, or the one `BERTREC_PRESET` names, or `small`. ValueError if there is none."""
    name = name or os.environ.get("BERTREC_PRESET") or "small"
    if name not in PRESETS:
        raise ValueError(
            f"there is no preset {name!r}; choose one of {', '.join(PRESETS)} (BERTREC_PRESET or --preset)"
        )
    return PRESETS[name]
