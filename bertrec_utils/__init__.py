"""BERT4Rec on MovieLens: the code that the notebooks share, from a rating log to recommended titles.

Five folders, as the notebooks are numbered: data, model, evaluation, training, scenarios. A name below is imported from
its folder when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data.dataset import Dataset, build_sequences, load_dataset
    from .data.logs import Interactions, load_interactions
    from .data.releases import load_movielens
    from .scenarios.recommender import Recommender
    from .settings import Settings, get_preset
    from .training.checkpoints import Checkpoint, load
    from .training.trainer import fit, new_model

_FOLDERS = {
    "data.dataset": ("Dataset", "build_sequences", "load_dataset"),
    "data.logs": ("Interactions", "load_interactions"),
    "data.releases": ("load_movielens",),
    "scenarios.recommender": ("Recommender",),
    "settings": ("Settings", "get_preset"),
    "training.checkpoints": ("Checkpoint", "load"),
    "training.trainer": ("fit", "new_model"),
}

__all__ = [
    "Checkpoint",
    "Dataset",
    "Interactions",
    "Recommender",
    "Settings",
    "build_sequences",
    "fit",
    "get_preset",
    "load",
    "load_dataset",
    "load_interactions",
    "load_movielens",
    "new_model",
]


def __getattr__(name: str) -> Any:
    for module, names in _FOLDERS.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
