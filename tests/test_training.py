import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from bertrec_utils import training
from bertrec_utils.baselines import Popularity
from bertrec_utils.evaluation import evaluate
from bertrec_utils.presets import PRESETS, Preset, get_preset
from bertrec_utils.sequences import Holdout, Vocabulary
from bertrec_utils.training import fit, load, new_model, sample_holdout, warmup_cosine
from conftest import rows

TINY = get_preset("tiny")


def train(prepared, preset=TINY, folder=None, seed=0, warm=True):
    vocabulary, split = prepared
    model = new_model(split, vocabulary, preset, seed, warm)
    return model, fit(model, split, vocabulary, preset, seed=seed, folder=folder)


def test_it_learns_and_keeps_the_best_epoch(prepared):
    vocabulary, split = prepared
    preset = replace(TINY, epochs=12)
    model, history = train(prepared, preset)
    assert history.loss.iloc[-1] < history.loss.iloc[0] < math.log(len(vocabulary)) + 1
    found = evaluate(model, split.validation, ["full"], progress=False)["full"]["ndcg@10"]
    assert found == pytest.approx(history["ndcg@10"].max(), rel=1e-4)
    popular = evaluate(Popularity(split.train, len(vocabulary)), split.validation, ["full"], progress=False)
    assert found > popular["full"]["ndcg@10"]


def test_same_seed_same_run(prepared):
    (left, first), (right, second) = train(prepared), train(prepared)
    assert first.drop(columns="seconds").equals(second.drop(columns="seconds"))
    for name, value in left.state_dict().items():
        assert torch.equal(value, right.state_dict()[name])
    assert train(prepared, seed=1)[1].loss.tolist() != first.loss.tolist()


def test_save_and_load_give_equal_scores(prepared, tmp_path):
    vocabulary, split = prepared
    model, history = train(prepared, folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.json", "model.safetensors"]
    checkpoint = load(tmp_path)
    histories = split.test.histories.rows(np.arange(20))
    np.testing.assert_array_equal(model.score(histories), checkpoint.model.score(histories))
    assert (checkpoint.preset, checkpoint.seed) == (TINY, 0)
    np.testing.assert_allclose(checkpoint.history, history)
    checkpoint.check(vocabulary)


def test_interrupted_run_goes_on_as_if_nothing_had_happened(prepared, tmp_path, monkeypatch):
    whole, expected = train(prepared)
    real = training.train_epoch

    def fails_in_the_third_epoch(*arguments):
        if arguments[-1] == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(training, "train_epoch", fails_in_the_third_epoch)
    with pytest.raises(KeyboardInterrupt):
        train(prepared, folder=tmp_path)
    assert len(load(tmp_path).history) <= 2  # the best epoch so far can be used already
    monkeypatch.undo()
    resumed, history = train(prepared, folder=tmp_path)
    assert history.drop(columns="seconds").equals(expected.drop(columns="seconds"))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])
    assert not (tmp_path / training.UNFINISHED).exists()


def test_unfinished_run_of_other_settings_is_left_alone(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "train_epoch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    vocabulary, split = prepared
    model = new_model(split, vocabulary, TINY)
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(TINY, 4))
    training.save_progress(tmp_path, model, optimizer, schedule, vocabulary, TINY, 0, [], None)
    before = (tmp_path / training.UNFINISHED).read_bytes()
    for preset, seed in ((replace(TINY, dropout=0.3), 0), (TINY, 1)):
        with pytest.raises(ValueError, match=r"unfinished run of other settings.*delete"):
            train(prepared, preset, tmp_path, seed)
    others = Vocabulary(vocabulary.items + 1)
    with pytest.raises(ValueError, match=r"other settings or data"):
        fit(model, split, others, TINY, folder=tmp_path)
    assert (tmp_path / training.UNFINISHED).read_bytes() == before


def test_unreadable_unfinished_run_says_what_to_delete(prepared, tmp_path):
    (tmp_path / training.UNFINISHED).write_bytes(b"PK cut off")
    with pytest.raises(ValueError, match=r"unfinished\.pt cannot be read .*delete it"):
        train(prepared, folder=tmp_path)


def test_finished_run_is_set_aside_not_lost(prepared, tmp_path):
    train(prepared, folder=tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    train(prepared, seed=1, folder=tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / "previous").iterdir()} == first
    assert (load(tmp_path).seed, load(tmp_path / "previous").seed) == (1, 0)


def test_no_epochs_is_an_error(prepared):
    with pytest.raises(ValueError, match="at least one"):
        train(prepared, replace(TINY, epochs=0))


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(partial):
        partial.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        training.replace_file(path, fail)
    assert path.read_text() == "old"


def test_early_stopping_waits_for_patience(prepared, monkeypatch):
    found = iter([0.1, 0.3, 0.2, 0.2, 0.9])
    monkeypatch.setattr(training, "metrics", lambda *_: {"ndcg@10": next(found), "hit@10": 0.0})
    _, history = train(prepared, replace(TINY, epochs=5, patience=2))
    assert history["ndcg@10"].tolist() == [0.1, 0.3, 0.2, 0.2]


def test_learning_rate_climbs_then_falls_to_zero():
    share = warmup_cosine(replace(TINY, epochs=10, warmup_share=0.1), steps=10)
    rates = [share(step) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.5) and rates[100] == pytest.approx(0)


def test_weight_decay_spares_biases_and_norms(small_model):
    decayed, spared = training.parameter_groups(small_model, 0.1)
    names = {id(parameter): name for name, parameter in small_model.named_parameters()}
    assert {names[id(p)].rsplit(".", 1)[-1] for p in spared["params"]} == {"bias", "weight", "item_bias"}
    assert all("norm" in names[id(p)] or "bias" in names[id(p)] for p in spared["params"])
    assert len(decayed["params"]) + len(spared["params"]) == len(names)


def test_sample_of_a_holdout_keeps_pairs():
    holdout = Holdout(rows(*([token] for token in range(1, 51))), np.arange(1, 51))
    sample = sample_holdout(holdout, 10, seed=0)
    assert len(sample.targets) == 10
    assert [sample.histories[row].tolist() for row in range(10)] == [[target] for target in sample.targets]
    assert sample_holdout(holdout, 50, seed=0) is holdout


def test_loading_errors_say_what_to_do(prepared, tmp_path):
    with pytest.raises(FileNotFoundError, match="run notebook 03"):
        load(tmp_path / "nowhere")
    train(prepared, replace(TINY, epochs=1), tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match="train it again"):
        load(tmp_path)


def test_checkpoint_of_another_vocabulary_is_refused(prepared, tmp_path):
    train(prepared, replace(TINY, epochs=1), tmp_path)
    with pytest.raises(ValueError, match="train again on this data"):
        load(tmp_path).check(Vocabulary(np.arange(7)))


def test_presets(monkeypatch):
    assert list(PRESETS) == ["tiny", "small", "ml-1m", "ml-20m", "ml-25m", "ml-32m"]
    assert get_preset().name == "tiny"  # conftest.py sets BERTREC_PRESET
    monkeypatch.delenv("BERTREC_PRESET")
    assert get_preset().name == "small"
    with pytest.raises(ValueError, match=r"no preset 'huge'.*tiny, small, ml-1m"):
        get_preset("huge")
    assert json.loads(json.dumps(vars(get_preset()))) == vars(Preset(**vars(get_preset())))
