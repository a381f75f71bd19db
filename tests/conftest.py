import os
from pathlib import Path

import numpy as np
import pytest
import torch

from bertrec_utils.common import PROJECT
from bertrec_utils.data.dataset import load_dataset
from bertrec_utils.data.sequences import Sequences
from bertrec_utils.model.modern import ModernTransformer
from bertrec_utils.settings import ModelSettings, Settings, get_preset


def rows(*histories):
    """Sequences of the given token lists."""
    lengths = [len(history) for history in histories]
    tokens = np.array([token for history in histories for token in history], dtype=np.int32)
    return Sequences(tokens, np.concatenate([[0], np.cumsum(lengths)]).astype(int), np.arange(len(histories)))


def model_settings(**changes) -> ModelSettings:
    """Settings of a network for a test; the rest as they come."""
    return ModelSettings(**changes)


def settings(**changes) -> Settings:
    """The settings of preset tiny, with changes."""
    return get_preset("tiny").change(**changes)


@pytest.fixture(scope="session")
def bundled():
    """The log of preset small: the first users of the bundled ratings."""
    return load_dataset(get_preset("small").data).log


@pytest.fixture(scope="session")
def dataset():
    """120 users of the bundled ratings."""
    return load_dataset(get_preset("tiny").data)


@pytest.fixture
def small_model():
    torch.manual_seed(0)
    model = ModernTransformer(30, model_settings(max_length=12, width=16, layers=2, heads=2, dropout=0.5))
    # away from the tiny initial weights, so that mistakes show
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture
def ml_1m_folder():
    """A user's own copy of ML-1M; without one these tests skip."""
    folder = Path(os.environ.get("BERTREC_DATA", PROJECT / "data"))
    if not (folder / "ml-1m" / "ratings.dat").exists():
        pytest.skip("no copy of ML-1M: set BERTREC_DATA to the folder that holds ml-1m/")
    return folder
