"""The parts of benchmarks/ that decide what a table says: which ingredient is out, how operations are counted."""

from dataclasses import replace
from unittest import mock

import ablations
import numpy as np
import peers
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from train_speed import step_operations

from bertrec_utils import masking, training
from bertrec_utils.model import BERT4Rec, ModelConfig
from bertrec_utils.presets import get_preset
from bertrec_utils.sequences import PAD
from conftest import rows

ITEMS = 40


@pytest.fixture
def sequences():
    random = np.random.default_rng(0)
    return rows(*((random.permutation(ITEMS)[: 5 + row] + 1).tolist() for row in range(20)))


def questions_of(name, sequences):
    _, settings, parts = ablations.ABLATIONS[name]
    preset = replace(get_preset("tiny"), **settings)
    with ablations.changed(parts):
        return list(masking.cloze_batches(sequences, ITEMS + 1, preset, np.random.default_rng(0)))


def test_cloze_only_asks_about_hidden_films(sequences):
    for batch in questions_of("cloze-only", sequences):
        assert (batch.labels != PAD).sum() == (batch.history == ITEMS + 1).sum()


def test_next_only_hides_nothing_and_looks_at_the_past(sequences):
    for batch in questions_of("next-only", sequences):
        used = batch.labels != PAD
        assert not (batch.history == ITEMS + 1).any()
        assert (batch.sees == batch.places)[used].all()


def test_random_start_counts_nothing(sequences):
    split = mock.Mock(train=sequences)
    with ablations.changed(ablations.ABLATIONS["random-start"][2]):
        model = training.new_model(split, range(ITEMS), get_preset("tiny"))
    assert not model.item_bias.any()


def test_learned_positions_are_the_only_ones():
    torch.manual_seed(0)
    model = ablations.LearnedPositions(ModelConfig(ITEMS, width=8, heads=1))
    forth, back = rows([1, 2, 3, 4]), rows([4, 3, 2, 1])
    assert not np.allclose(model.score(forth), model.score(back), atol=1e-6)
    torch.nn.init.zeros_(model.positions.weight)
    assert np.allclose(model.score(forth), model.score(back), atol=1e-6)


def test_operations_are_those_that_pytorch_counts(sequences):
    batch = next(masking.cloze_batches(sequences, ITEMS + 1, get_preset("tiny"), np.random.default_rng(0)))
    model = BERT4Rec(ModelConfig(ITEMS, peers.HISTORY, peers.WIDTH, peers.LAYERS, peers.HEADS))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.logits(model(batch)[batch.labels != PAD])
    assert step_operations(batch, ITEMS) == 3 * counter.get_total_flops()
