"""BERT4Rec on MovieLens: the code that the notebooks share, from a rating log to recommended titles.

Six folders, in the order in which they build on each other: data, model, evaluation, training, scenarios, commands. A
name below is imported from its folder when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data.dataset import build_dataset as build_dataset
    from .data.dataset import build_sequences as build_sequences
    from .data.dataset import load_dataset as load_dataset
    from .data.logs import from_frame as from_frame
    from .data.logs import load_interactions as load_interactions
    from .data.releases import load_movielens as load_movielens
    from .scenarios.recommender import Recommender as Recommender
    from .settings import Settings as Settings
    from .settings import get_preset as get_preset
    from .training.checkpoints import load as load
    from .training.trainer import fit as fit
    from .training.trainer import new_model as new_model

_MODULES = {
    "Recommender": "scenarios.recommender",
    "Settings": "settings",
    "build_dataset": "data.dataset",
    "build_sequences": "data.dataset",
    "fit": "training.trainer",
    "from_frame": "data.logs",
    "get_preset": "settings",
    "load": "training.checkpoints",
    "load_dataset": "data.dataset",
    "load_interactions": "data.logs",
    "load_movielens": "data.releases",
    "new_model": "training.trainer",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
