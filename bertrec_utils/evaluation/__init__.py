"""Notebook 04: ranks and metrics (ranking), lists, models in closed form (baselines), and mixtures with one (mixture).
Works with anybody's model, and takes numpy and scipy, not torch."""

from .baselines import (
    EASE,
    PCTM,
    ItemKNN,
    LinearNextItem,
    MarkovChain,
    MostRepeated,
    Popularity,
    RecentPopularity,
    SmoothedMarkovChain,
    linear_baseline,
)
from .lists import top_k
from .mixture import Mixture, fit_mixture
from .ranking import Scorer, bootstrap_interval, evaluate, metrics, per_user_metrics, target_ranks

__all__ = ["EASE", "PCTM", "ItemKNN", "LinearNextItem", "MarkovChain", "Mixture", "MostRepeated", "Popularity"]
__all__ += ["RecentPopularity", "Scorer", "SmoothedMarkovChain", "bootstrap_interval", "evaluate", "fit_mixture"]
__all__ += ["linear_baseline", "metrics", "per_user_metrics", "target_ranks", "top_k"]
