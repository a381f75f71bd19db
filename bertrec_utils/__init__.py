"""BERT4Rec on MovieLens: the code that the notebooks share, from a release to recommended titles."""

from .presets import Preset, get_preset
from .recommend import Recommender
from .releases import load_interactions, load_movielens
from .training import load

__all__ = ["Preset", "Recommender", "get_preset", "load", "load_interactions", "load_movielens"]
