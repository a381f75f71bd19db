"""The parts of benchmarks/ that decide what a table says: which ingredient is out, how operations are counted."""

import json
from dataclasses import replace

import ablations
import ensemble
import numpy as np
import peers
import pytest
import record_run
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from train_speed import step_operations

from bertrec_utils.model.modern import ModernTransformer
from bertrec_utils.settings import PRESETS, get_preset
from bertrec_utils.model.masking import training_batches
from bertrec_utils.data.sequences import PAD
from conftest import preset, rows

ITEMS = 40


@pytest.fixture
def sequences():
    random = np.random.default_rng(0)
    return rows(*((random.permutation(ITEMS)[: 5 + row] + 1).tolist() for row in range(20)))


def counts(name, sequences):
    """How many films an epoch of the ablation hides, and how many questions it asks."""
    settings = replace(get_preset("tiny"), **ablations.ABLATIONS[name].settings)
    batches = list(training_batches(sequences, ITEMS + 1, settings, np.random.default_rng(0)))
    return sum((b.history == ITEMS + 1).sum() for b in batches), sum((b.labels > 0).sum() for b in batches)


def test_ablations_take_out_the_questions_that_their_names_say(sequences):
    hidden, asked = counts("cloze-only", sequences)
    assert hidden == asked
    hidden, asked = counts("next-only", sequences)
    assert hidden < 0.1 * asked  # only where a prefix leaves nothing else to ask
    whole = ablations.ABLATIONS["full"]
    assert whole.settings == {} and whole.kind is ModernTransformer


def test_learned_positions_are_the_only_ones():
    torch.manual_seed(0)
    model = ablations.LearnedPositions(ITEMS, preset(width=8, heads=1))
    forth, back = rows([1, 2, 3, 4]), rows([4, 3, 2, 1])
    assert not np.allclose(model.score(forth), model.score(back), atol=1e-6)
    torch.nn.init.zeros_(model.positions.weight)
    assert np.allclose(model.score(forth), model.score(back), atol=1e-6)


def test_learned_positions_count_from_the_newest_film():
    model = ablations.LearnedPositions(ITEMS, preset(width=8, heads=1))
    alone, beside_longer = model.score(rows([1, 2, 3])), model.score(rows([1, 2, 3], [9, 8, 7, 6, 5]))[:1]
    np.testing.assert_allclose(alone, beside_longer, atol=1e-5)  # padding on the left moves nothing


def test_the_position_of_the_test_is_learned(sequences):
    model = ablations.LearnedPositions(ITEMS, preset(width=8, heads=1))
    for batch in training_batches(sequences, ITEMS + 1, get_preset("tiny"), np.random.default_rng(0)):
        model(batch).backward()
    asked = set()
    model.positions.register_forward_hook(lambda module, inputs, output: asked.update(inputs[0].flatten().tolist()))
    model.score(rows(list(range(1, 11))))
    assert 0 in asked
    assert model.positions.weight.grad[sorted(asked)].any(1).all()


def test_an_ablation_runs(dataset):
    ablation = ablations.ABLATIONS["classic"]
    settings = replace(get_preset("tiny"), epochs=1, **ablation.settings)
    history, with_linear = ablations.run(ablation, settings, dataset)
    assert [row["epoch"] for row in history] == [1]
    assert with_linear >= history[0]["ndcg@10"]  # no baseline at all is one of the mixtures


def test_a_finished_run_is_only_tested(dataset, tmp_path, monkeypatch):
    preset, folder = replace(get_preset("tiny"), epochs=1), tmp_path / "tiny-seed0"
    first = record_run.record(preset, 0, folder)
    monkeypatch.setattr(record_run, "fit", None)  # training again would be an error
    assert record_run.record(preset, 0, folder) == first
    assert not record_run.is_finished(folder, preset, 1, dataset)
    assert not record_run.is_finished(folder, replace(preset, epochs=2), 0, dataset)
    (folder / record_run.UNFINISHED).touch()
    assert not record_run.is_finished(folder, preset, 0, dataset)


def test_average_by_hand():
    """Two transformers whose scores differ: the mean of what each log-probability is, written out."""
    torch.manual_seed(0)
    pair = [ModernTransformer(ITEMS, preset(width=8, heads=1)) for _ in range(2)]
    for transformer in pair:
        torch.nn.init.normal_(transformer.item_bias)
    histories = rows([1, 2, 3], [4, 5])
    scores = [transformer.score(histories) for transformer in pair]
    expected = sum(each - np.log(np.exp(each).sum(1, keepdims=True)) for each in scores) / 2
    remembering = [ensemble.Remembering(transformer) for transformer in pair]
    average = ensemble.Average(remembering, ITEMS)
    np.testing.assert_allclose(average.score(histories), expected, rtol=1e-4, atol=1e-4)
    remembering[0].scorer = remembering[1].scorer = None  # asking again would be an error
    np.testing.assert_array_equal(average.score(histories.rows([1, 0])), average.score(histories)[::-1])


def test_our_side_trains_until_the_watch_stops_it(dataset, capsys, monkeypatch):
    monkeypatch.setitem(PRESETS, "ml-1m", replace(get_preset("ml-1m"), release="ml-latest-2k", max_users=120))
    watch = peers.Watch(minutes=0.02, validate_every=0.01, holdout=dataset.split.validation)
    with pytest.raises(peers.TimeIsUp):
        peers.train_ours(dataset, watch)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert lines[-1]["sequences"] > 0 and lines[-1]["seconds"] >= 1.2 and 0 <= lines[-1]["ndcg@10"] <= 1


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = [0.0]
    monkeypatch.setattr(peers.time, "perf_counter", lambda: now[0])
    return now


def steps(watch, clock, count, seconds):
    for _ in range(count):
        clock[0] += seconds
        watch.step(10, None)


def test_watch_counts_after_the_warm_up(clock, capsys):
    watch = peers.Watch(minutes=0.5, validate_every=None, holdout=None)
    steps(watch, clock, 3, seconds=100)
    steps(watch, clock, 2, seconds=14)
    assert not capsys.readouterr().out
    with pytest.raises(peers.TimeIsUp):
        steps(watch, clock, 1, seconds=2)
    line = json.loads(capsys.readouterr().out)
    assert (line["sequences"], line["seconds"]) == (30, 30) and line["peak_mb"] > 1


def test_watch_stops_the_clock_while_it_validates(clock, capsys, monkeypatch):
    def validate(self, scorer):
        clock[0] += 1000
        return {"ndcg@10": 0.5}

    monkeypatch.setattr(peers.Watch, "validate", validate)
    watch = peers.Watch(minutes=1, validate_every=0.5, holdout=None)
    with pytest.raises(peers.TimeIsUp):
        steps(watch, clock, 100, seconds=10)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["sequences"], line["seconds"], line["ndcg@10"]) for line in lines] == [(30, 30, 0.5), (60, 60, 0.5)]


def test_operations_are_those_that_pytorch_counts(sequences):
    batch = next(training_batches(sequences, ITEMS + 1, get_preset("tiny"), np.random.default_rng(0)))
    model = ModernTransformer(ITEMS, peers.our_preset())
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.logits(model.states(batch)[batch.labels != PAD])
    assert step_operations(batch, ITEMS) == 3 * counter.get_total_flops()
