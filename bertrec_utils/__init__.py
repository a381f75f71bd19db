"""BERT4Rec on MovieLens: the code that the notebooks share, from a rating log to recommended titles.

Five folders, in the order in which they build on each other: data, model, evaluation, training, scenarios. A name below
is imported from its folder when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data.dataset import build_dataset, build_sequences, load_dataset
    from .data.logs import from_frame, load_interactions
    from .data.releases import load_movielens
    from .scenarios.recommender import Recommender
    from .settings import Settings, get_preset
    from .training.checkpoints import load
    from .training.trainer import fit, new_model

__all__ = ["Recommender", "Settings", "build_sequences", "fit", "get_preset", "load", "load_dataset"]
__all__ += ["build_dataset", "from_frame", "load_interactions", "load_movielens", "new_model"]
_MODULES = {"Recommender": "scenarios.recommender", "Settings": "settings", "build_sequences": "data.dataset"}
_MODULES |= {"fit": "training.trainer", "get_preset": "settings", "load": "training.checkpoints"}
_MODULES |= {"load_dataset": "data.dataset", "load_interactions": "data.logs", "load_movielens": "data.releases"}
_MODULES |= {"build_dataset": "data.dataset", "from_frame": "data.logs", "new_model": "training.trainer"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
