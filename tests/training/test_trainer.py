import json
import math
import os
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch

from bertrec_utils.evaluation.baselines import Popularity
from bertrec_utils.training.checkpoints import load
from bertrec_utils.data.dataset import Dataset, load_dataset
from bertrec_utils.evaluation.ranking import evaluate
from bertrec_utils.settings import PRESETS, Settings, get_preset
from bertrec_utils.model.masking import training_batches
from bertrec_utils.training.trainer import Trainer, parameter_groups, sample_holdout, warmup_cosine
from bertrec_utils.data.sequences import Holdout, Vocabulary
from bertrec_utils.training.trainer import UNFINISHED, fit, new_model
from conftest import rows

TINY = get_preset("tiny")
CPU = torch.device("cpu")  # a GPU adds up in any order: other last bits


def train(dataset, preset=TINY, folder=None, seed=0, device=None, **callbacks):
    model = new_model(dataset, preset, seed, device=device)
    return model, fit(model, dataset, seed=seed, folder=folder, **callbacks)


def interrupt_after(epoch, step=None):
    """A callback that interrupts a run at the end of `epoch`, or after a `step` of the epoch that follows it."""

    def on_epoch(run):
        if step is None and len(run.history) == epoch:
            raise KeyboardInterrupt

    def on_step(run, questions):
        on_step.seen += len(run.history) == epoch
        if step is not None and on_step.seen == step:
            raise KeyboardInterrupt

    on_step.seen = 0
    return {"on_epoch": on_epoch, "on_step": on_step}


def equal_weights(left, right):
    return all(torch.equal(value, right.state_dict()[name]) for name, value in left.state_dict().items())


def test_it_learns_and_keeps_the_best_epoch(dataset):
    split = dataset.split
    model, history = train(dataset, replace(TINY, epochs=12))
    assert history.loss.iloc[-1] < history.loss.iloc[0] < math.log(len(dataset.vocabulary)) + 1
    ndcg = evaluate(model, split.validation, ["full"], progress=False)["full"]["ndcg@10"]
    assert ndcg == pytest.approx(history["ndcg@10"].max(), rel=1e-4)
    popular = Popularity(split.train, len(dataset.vocabulary))
    assert ndcg > evaluate(popular, split.validation, ["full"], progress=False)["full"]["ndcg@10"]


def test_training_is_the_recipe_written_out_once_more(dataset):
    """AdamW (beta .9 and .98; decay for matrices only), clipping at 5, a climb and half a cosine, dropout: by hand."""
    preset = replace(TINY, precision="float32", weight_decay=2.0, learning_rate=0.01, epochs=4, warmup_fraction=0.3)

    def large():
        model = new_model(dataset, preset, device=CPU)
        torch.nn.init.normal_(model.item_embedding.weight, std=1.0, generator=torch.Generator().manual_seed(0))
        return model

    model, reference = large(), large()
    run = Trainer(model.eval(), dataset, seed=5)  # it trains in training mode, whatever mode it was in
    losses = []
    for _ in range(2):
        losses.append(run.train_epoch())
        run.history.append({})

    weights = list(reference.parameters())
    first, second = [torch.zeros_like(w) for w in weights], [torch.zeros_like(w) for w in weights]
    norms, step, steps = [], 0, 4 * 4
    for epoch in range(2):
        torch.manual_seed(5 * 100_003 + epoch)
        reference.train()
        means = []
        random = np.random.default_rng([5, epoch])
        for questions in training_batches(dataset.split.train, reference.mask_token, preset, random):
            warm = round(0.3 * steps)
            climb, fall = (step + 1) / warm, 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))
            rate = 0.01 * (climb if step < warm else fall)
            loss = reference(questions)
            gradients = torch.autograd.grad(loss, weights)
            norms.append(math.sqrt(sum(g.square().sum().item() for g in gradients)))
            step += 1
            with torch.no_grad():
                for w, g, m, v in zip(weights, gradients, first, second, strict=True):
                    g = g * min(1, 5 / norms[-1])
                    m.mul_(0.9).add_(0.1 * g)
                    v.mul_(0.98).add_(0.02 * g * g)
                    if w.ndim > 1:
                        w -= rate * 2.0 * w
                    w -= rate * (m / (1 - 0.9**step)) / ((v / (1 - 0.98**step)).sqrt() + 1e-8)
            means.append(loss.item())
        assert losses[epoch] == pytest.approx(sum(means) / len(means), rel=1e-4)
    assert max(norms) > 7 and step == 8  # some gradients are clipped
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, reference.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_same_seed_same_run(dataset):
    (left, first), (right, second) = train(dataset, device=CPU), train(dataset, device=CPU)
    assert first.drop(columns="seconds").equals(second.drop(columns="seconds"))
    assert equal_weights(left, right)
    assert train(dataset, seed=1, device=CPU)[1].loss.tolist() != first.loss.tolist()


def test_learning_rate_of_a_run_climbs_then_falls(dataset):
    rates = []
    preset = replace(TINY, epochs=5, warmup_fraction=0.2, patience=5)
    train(dataset, preset, on_step=lambda run, _: rates.append(run.schedule.get_last_lr()[0] / preset.learning_rate))
    assert rates[:3] == pytest.approx([0.5, 0.75, 1]) and len(rates) == 20  # after each step; four make an epoch
    assert rates[3:] == sorted(rates[3:], reverse=True) and rates[-1] == pytest.approx(0)


def test_learning_rate_by_hand():
    share = warmup_cosine(replace(TINY, epochs=10, warmup_fraction=0.1), steps=10)
    rates = [share(step) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.5) and rates[100] == pytest.approx(0)


@pytest.mark.parametrize("when", [(2, None), (2, 1), (0, 2)])
def test_interrupted_run_goes_on_as_if_nothing_had_happened(dataset, tmp_path, when):
    whole, expected = train(dataset, device=CPU)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, folder=tmp_path, device=CPU, **interrupt_after(*when))
    if when[0]:
        assert len(load(tmp_path).history) <= 2  # the best epoch so far can be used already
    resumed, history = train(dataset, folder=tmp_path, device=CPU)
    assert history.drop(columns="seconds").equals(expected.drop(columns="seconds"))
    assert equal_weights(whole, resumed)
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["model.safetensors"]


def test_new_models_know_nothing_of_the_held_out_films(dataset):
    """Another validation and test film for everybody leaves the warm start as it was; without it nothing is counted."""
    tokens = dataset.sequences.tokens.copy()
    ends = dataset.sequences.offsets[1:]
    tokens[ends - 1], tokens[ends - 2] = tokens[ends - 2], tokens[ends - 1]
    tokens[ends - 1] = tokens[ends - 1] % len(dataset.vocabulary) + 1
    other = Dataset(dataset.vocabulary, replace(dataset.sequences, tokens=tokens))
    warm = new_model(dataset, TINY)
    assert equal_weights(warm, new_model(other, TINY))
    cold = new_model(dataset, replace(TINY, warm_start=False))
    assert not equal_weights(warm, cold) and not cold.item_bias.any()


OTHERS = {
    "preset": {"preset": replace(TINY, dropout=0.3)},
    "cold start": {"preset": replace(TINY, warm_start=False)},
    "seed": {"seed": 1},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_unfinished_run_of_other_settings_is_left_alone(dataset, tmp_path, other):
    with pytest.raises(KeyboardInterrupt):
        train(dataset, folder=tmp_path, **interrupt_after(1))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"unfinished run of another .*(preset tiny, seed 0).*delete"):
        train(load_dataset(other.get("preset", TINY)), folder=tmp_path, **other)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_unfinished_run_from_other_weights_or_on_other_data_is_left_alone(dataset, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(dataset, folder=tmp_path, **interrupt_after(1))
    changed = new_model(dataset, TINY)
    torch.nn.init.zeros_(changed.item_bias)
    with pytest.raises(ValueError, match="another start"):
        fit(changed, dataset, folder=tmp_path)
    other_items = Dataset(Vocabulary(dataset.vocabulary.items + 1), dataset.sequences)
    half = Dataset(dataset.vocabulary, dataset.sequences.rows(np.arange(60)))
    for other in (other_items, half):
        with pytest.raises(ValueError, match="another data"):
            train(other, folder=tmp_path)


def test_run_without_a_whole_epoch_changes_nothing(dataset, tmp_path):
    train(dataset, replace(TINY, epochs=1), folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, folder=tmp_path, seed=1, **interrupt_after(0, step=1))
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["model.safetensors"] and load(tmp_path).seed == 0


def test_damaged_unfinished_run_says_what_to_delete(dataset, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(dataset, folder=tmp_path, **interrupt_after(1))
    path = tmp_path / UNFINISHED
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # a bit of a weight: the zip archive within would not notice
    for damaged in (content, content[:100], b"", b"PK cut off"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"unfinished\.pt is damaged; delete it"):
            train(dataset, folder=tmp_path)


def test_run_of_a_log_that_has_moved_goes_on(dataset, tmp_path):
    here = Dataset(dataset.vocabulary, dataset.sequences)
    with pytest.raises(KeyboardInterrupt):
        train(here, replace(TINY, ratings_file="old/log.csv"), tmp_path, **interrupt_after(1))
    assert len(train(here, replace(TINY, ratings_file="new/log.csv"), tmp_path)[1]) == 3


def test_early_stopping_waits_for_patience(dataset):
    run = Trainer(new_model(dataset, replace(TINY, epochs=6, patience=2)), dataset, 0)
    is_over = []
    for ndcg in (0.1, 0.3, 0.2, 0.3, 0.9, 0.9):
        is_over.append(run.is_over())
        run.history.append({"ndcg@10": ndcg})
    assert is_over == [False, False, False, False, True, False] and run.is_over()
    assert run.best_epoch == 4


def test_interrupted_when_patience_is_used_up_it_stops_there(dataset, tmp_path):
    still = replace(TINY, learning_rate=1e-12, patience=2, epochs=30)  # nothing changes: the first epoch stays best
    whole, expected = train(dataset, still)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, still, tmp_path, **interrupt_after(3))
    resumed, history = train(dataset, still, tmp_path)
    assert len(history) == len(expected) == 3 and equal_weights(whole, resumed)


def test_finished_models_are_never_lost(dataset, tmp_path, capsys):
    fast = replace(TINY, epochs=1)
    first = [(train(dataset, fast, tmp_path, seed), (tmp_path / "model.safetensors").read_bytes()) for seed in range(3)]
    assert [load(tmp_path / place).seed for place in ("previous-1", "previous-2", ".")] == [0, 1, 2]
    assert (tmp_path / "previous-1" / "model.safetensors").read_bytes() == first[0][1]
    printed = capsys.readouterr().out
    assert "previous-2" in printed and str(tmp_path / "model.safetensors") in printed


def test_whenever_it_is_stopped_a_finished_model_survives(tmp_path, monkeypatch):
    """A crash before each of the renames of a run, two times over, then the run again: nothing of the past is lost."""
    few = load_dataset(replace(TINY, max_users=30))
    fast = replace(TINY, max_users=30, epochs=2)
    replace_of_system = os.replace
    for crash_at in count(1):
        folder = tmp_path / str(crash_at)
        train(few, fast, folder)
        finished = (folder / "model.safetensors").read_bytes()
        crashes = 0
        for _ in range(2):
            renames = count(1)

            def crash(source, target, renames=renames, crash_at=crash_at):
                if next(renames) == crash_at:
                    raise KeyboardInterrupt
                replace_of_system(source, target)

            monkeypatch.setattr(os, "replace", crash)
            try:
                train(few, fast, folder, seed=1)
            except KeyboardInterrupt:
                crashes += 1
            monkeypatch.undo()
        train(few, fast, folder, seed=1)
        assert load(folder).seed == 1
        assert finished in [path.read_bytes() for path in folder.glob("previous-*/model.safetensors")]
        if not crashes:
            break
    assert crash_at > 5


def test_loss_that_is_no_number_stops_the_run(dataset):
    model = new_model(dataset, TINY)
    torch.nn.init.constant_(model.item_bias, math.nan)
    with pytest.raises(FloatingPointError, match="a lower learning rate"):
        fit(model, dataset)


def test_model_of_another_vocabulary_is_refused(dataset):
    model = new_model(dataset, TINY)
    other = Dataset(Vocabulary(np.arange(50)), rows([1, 2, 3], [4, 5, 6]))
    with pytest.raises(ValueError, match="items, the data 50"):
        fit(model, other)


def test_weight_decay_spares_biases_and_norms(small_model):
    decayed, spared = parameter_groups(small_model, 0.1)
    names = {id(parameter): name for name, parameter in small_model.named_parameters()}
    assert all("norm" in names[id(p)] or "bias" in names[id(p)] for p in spared["params"])
    assert not any("norm" in names[id(p)] or "bias" in names[id(p)] for p in decayed["params"])
    assert len(decayed["params"]) + len(spared["params"]) == len(names)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0)


def test_sample_of_a_holdout_keeps_pairs():
    holdout = Holdout(rows(*([token] for token in range(1, 51))), np.arange(1, 51))
    sample = sample_holdout(holdout, 10, seed=0)
    assert len(sample.targets) == 10
    assert [sample.histories[row].tolist() for row in range(10)] == [[target] for target in sample.targets]
    assert sample_holdout(holdout, 50, seed=0) is holdout


def test_presets(monkeypatch):
    assert list(PRESETS) == ["tiny", "small", "ml-1m", "ml-20m", "ml-25m", "ml-32m"]
    assert get_preset().name == "tiny"  # conftest.py sets BERTREC_PRESET
    monkeypatch.delenv("BERTREC_PRESET")
    assert get_preset().name == "small"
    with pytest.raises(ValueError, match=r"no preset 'huge'.*tiny, small, ml-1m"):
        get_preset("huge")
    assert Settings(**json.loads(json.dumps(vars(get_preset())))) == get_preset()


@pytest.mark.parametrize(
    "setting",
    [
        {"layers": 0}, {"epochs": 0}, {"width": 30, "heads": 4}, {"heads": 0}, {"dropout": 1.0}, {"dropout": -0.1},
        {"mask_ratio": 1.5}, {"p_causal": 0.7, "p_cloze": 0.4}, {"learning_rate": 0.0}, {"batch_size": 0},
        {"patience": 0}, {"max_length": 0}, {"weight_decay": -1.0}, {"learning_rate": math.nan},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(setting):
    with pytest.raises(
        ValueError, match=f"the setting {list(setting)[-1] if len(setting) == 1 else '(width|p_cloze)'} is"
    ):
        replace(TINY, **setting)
