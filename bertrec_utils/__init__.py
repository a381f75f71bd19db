"""BERT4Rec on MovieLens: the code that the notebooks share, from a release to recommended titles."""

from .checkpoints import load
from .dataset import load_dataset
from .logs import load_interactions
from .presets import Preset, get_preset
from .recommend import Recommender
from .releases import load_movielens

__all__ = ["Preset", "Recommender", "get_preset", "load", "load_dataset", "load_interactions", "load_movielens"]
