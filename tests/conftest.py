import os
from pathlib import Path

import numpy as np
import pytest
import torch

from bertrec_utils.model import BERT4Rec, ModelConfig
from bertrec_utils.releases import PROJECT, load_movielens
from bertrec_utils.sequences import Sequences, build_sequences, leave_one_out


def rows(*histories):
    """Sequences of the given token lists."""
    lengths = [len(history) for history in histories]
    tokens = np.array([token for history in histories for token in history], dtype=np.int32)
    return Sequences(tokens, np.concatenate([[0], np.cumsum(lengths)]).astype(int), np.arange(len(histories)))


@pytest.fixture(scope="session")
def bundled():
    return load_movielens("ml-latest-small")


@pytest.fixture(scope="session")
def prepared(bundled):
    """Vocabulary and leave-one-out split of 120 users of the bundled ratings."""
    vocabulary, sequences = build_sequences(bundled.ratings, min_item_ratings=5, max_users=120)
    return vocabulary, leave_one_out(sequences)


@pytest.fixture
def small_model():
    torch.manual_seed(0)
    model = BERT4Rec(ModelConfig(item_count=30, history_length=12, width=16, layers=2, heads=2, dropout=0.5))
    # away from the tiny initial weights, so that mistakes show
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture
def ml_1m_folder():
    """A user's own copy of ML-1M; without one these tests skip."""
    places = [Path(os.environ.get("BERTREC_DATA", PROJECT / "data")), PROJECT.parent / "shared" / "data"]
    found = [place for place in places if (place / "ml-1m" / "ratings.dat").exists()]
    if not found:
        pytest.skip("no copy of ML-1M on this machine")
    return found[0]
