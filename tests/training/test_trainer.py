import hashlib
import io
import math
import os
from dataclasses import replace
from itertools import count

import numpy as np
import pandas as pd
import pytest
import torch

from bertrec_utils.__main__ import main
from bertrec_utils.data.dataset import Dataset, build_dataset, load_dataset
from bertrec_utils.data.logs import from_frame
from bertrec_utils.data.sequences import PAD, Holdout, Split, Vocabulary
from bertrec_utils.evaluation.baselines import Popularity, linear_baseline
from bertrec_utils.evaluation.lists import top_k
from bertrec_utils.evaluation.mixture import WEIGHTS, fit_mixture
from bertrec_utils.evaluation.ranking import evaluate
from bertrec_utils.model.masking import training_batches
from bertrec_utils.settings import PRESETS, RECIPES, get_preset
from bertrec_utils.training import devices
from bertrec_utils.training.checkpoints import load
from bertrec_utils.training.formats import FORMAT
from bertrec_utils.training.trainer import (
    Trainer,
    fit,
    new_model,
    parameter_groups,
    warmup_cosine,
)
from bertrec_utils.training.unfinished import UNFINISHED
from conftest import rows

TINY = get_preset("tiny")
CPU = torch.device("cpu")  # a GPU adds up in any order: other last bits
FINISHED = ["items.csv", "model.safetensors"]  # what a run leaves in its folder
FROZEN = TINY.change(learning_rate=1e-9)  # weights change in their last digits, and no rank does


def train(dataset, settings=TINY, folder=None, seed=0, **options):
    model = new_model(dataset, settings, seed, device=CPU)
    return model, fit(model, dataset, settings, seed=seed, folder=folder, **options)


def interrupt_after(epoch, step=None):
    """A callback that interrupts a run at the end of `epoch`, or after a `step` of the epoch that follows it."""

    def on_epoch(trainer):
        if step is None and len(trainer.history) == epoch:
            raise KeyboardInterrupt

    def on_step(trainer, batch):
        on_step.seen += len(trainer.history) == epoch
        if step is not None and on_step.seen == step:
            raise KeyboardInterrupt

    on_step.seen = 0
    return {"on_epoch": on_epoch, "on_step": on_step}


def equal_weights(left, right):
    return all(torch.equal(value, right.state_dict()[name]) for name, value in left.state_dict().items())


def test_it_learns_and_keeps_the_best_epoch(dataset):
    split = dataset.split
    model, history = train(dataset, TINY.change(epochs=12))
    assert history.loss.iloc[-1] < history.loss.iloc[0] < math.log(len(dataset.vocabulary)) + 1
    ndcg = evaluate(model, split.validation, ["full"], progress=False)["full"]["ndcg@10"]
    assert ndcg == pytest.approx(history["ndcg@10"].max(), rel=1e-4)
    popular = Popularity(split.train, len(dataset.vocabulary))
    assert ndcg > evaluate(popular, split.validation, ["full"], progress=False)["full"]["ndcg@10"]


def test_training_is_the_recipe_written_out_once_more(dataset):
    """AdamW (beta .9 and .98; decay for matrices only), clipping at 5, warm-up and half a cosine, dropout: by hand."""
    changes = {"precision": "float32", "weight_decay": 2.0, "learning_rate": 0.01, "epochs": 4, "warmup_fraction": 0.3}
    settings = TINY.change(**changes)

    def large():
        model = new_model(dataset, settings, device=CPU)
        torch.nn.init.normal_(model.item_embedding.weight, std=1.0, generator=torch.Generator().manual_seed(0))
        return model

    model, reference = large(), large()
    trainer = Trainer(model.eval(), dataset, settings, seed=5)  # it trains in training mode, whatever mode it was in
    losses = []
    for _ in range(2):
        losses.append(trainer.train_epoch())
        trainer.history.append({})

    weights = list(reference.parameters())
    first, second = [torch.zeros_like(w) for w in weights], [torch.zeros_like(w) for w in weights]
    norms, step, steps = [], 0, 4 * 4
    for epoch in range(2):
        torch.manual_seed(5 * 100_003 + epoch)
        reference.train()
        means, targets = [], []  # of each batch
        random = np.random.default_rng([5, epoch])
        for batch in training_batches(
            dataset.split.train, reference.mask_token, settings.training, settings.model.max_length, random
        ):
            warm = round(0.3 * steps)
            rise, fall = (step + 1) / warm, 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))
            rate = 0.01 * (rise if step < warm else fall)
            loss = reference(batch)
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
            targets.append(int((batch.labels != PAD).sum()))
        total = sum(mean * count for mean, count in zip(means, targets, strict=True))
        assert losses[epoch] == pytest.approx(total / sum(targets), rel=1e-4)
        assert losses[epoch] != pytest.approx(sum(means) / len(means), rel=1e-3)  # batches differ in size
    assert max(norms) > 7 and step == 8  # some gradients are clipped
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, reference.state_dict()[name], rtol=1e-3, atol=1e-4)


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_the_best_epoch_is_kept_and_not_the_last_one(dataset, tmp_path):
    after_first = {}

    def spoil(trainer):
        if len(trainer.history) == 1:
            after_first.update(weights_of(trainer.model))
            torch.nn.init.normal_(trainer.model.item_embedding.weight.detach())

    model, history = train(dataset, FROZEN, tmp_path, on_epoch=spoil)
    assert history["ndcg@10"][0] > history["ndcg@10"][1:].max()
    for trained in (model, load(tmp_path, "cpu").model):
        assert all(torch.equal(value, after_first[name]) for name, value in trained.state_dict().items())


def test_of_equal_epochs_the_first_is_kept(dataset, tmp_path):
    after = []
    model, history = train(dataset, FROZEN, tmp_path, on_epoch=lambda trainer: after.append(weights_of(trainer.model)))
    assert len(set(history["ndcg@10"])) == 1 and len(history) == 3
    assert any(not torch.equal(value, after[1][name]) for name, value in after[0].items())
    for trained in (model, load(tmp_path, "cpu").model):
        assert all(torch.equal(value, after[0][name]) for name, value in trained.state_dict().items())


def best_unseen(scorer, histories):
    """The item that `scorer` finds best for each user."""
    return top_k(scorer, histories, 1)[:, 0].astype(np.int32)


def test_the_weight_of_the_mixture_is_chosen_on_validation_data_alone(dataset, tmp_path):
    """A validation in which the linear baseline is always right, and a test in which the network is."""
    train_part, known = dataset.split.train, dataset.split.test.histories
    network, baseline = new_model(dataset, FROZEN, device=CPU), linear_baseline(train_part, len(dataset.vocabulary))
    validation = Holdout(train_part, best_unseen(baseline, train_part))
    test = Holdout(known, best_unseen(network, known))
    divided = replace(dataset, other_split=Split(train_part, validation, test))
    model, _ = train(divided, FROZEN.change(epochs=1), tmp_path)
    assert fit_mixture(model, baseline, validation).weight == load(tmp_path).linear_weight == max(WEIGHTS)
    assert fit_mixture(model, baseline, test).weight == 0.0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_products_are_of_the_precision_that_was_set(dataset, precision):
    settings, seen = TINY.change(precision=precision), set()
    model = new_model(dataset, settings, device=CPU)
    for layer in (model.blocks[0].expand, model.blocks[1].attention.query):
        layer.register_forward_hook(lambda layer, inputs, output: seen.add((layer.training, output.dtype)))
    in_backward = set()
    model.item_embedding.weight.register_hook(lambda gradient: in_backward.add(torch.get_float32_matmul_precision()))
    fit(model, dataset, settings.change(epochs=1, negatives=8))
    assert in_backward == {"medium" if precision == "bfloat16" else "highest"}
    # ranks and weights are float32
    assert seen == {(True, getattr(torch, precision)), (False, torch.float32)}
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}


def test_bfloat16_learns_as_float32_does(dataset):
    curves = {}
    for precision in ("float32", "bfloat16"):
        settings = TINY.change(precision=precision, epochs=6)
        curves[precision] = train(dataset, settings)[1]
    full, half = curves["float32"], curves["bfloat16"]
    assert half.loss.iloc[-1] < half.loss.iloc[0] - 0.1
    assert (half.loss != full.loss).all()
    np.testing.assert_allclose(half.loss, full.loss, rtol=0.01)
    assert half["ndcg@10"].max() == pytest.approx(full["ndcg@10"].max(), abs=0.03)


def test_without_verbose_nothing_is_printed(dataset, tmp_path, capfd):
    """Not in a run that begins, nor in one that resumes, nor when a finished model is moved."""
    quiet = {"folder": tmp_path, "verbose": False}
    train(dataset, **quiet)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, seed=1, **quiet, **interrupt_after(1))
    train(dataset, seed=1, **quiet)
    assert load(tmp_path / "previous-1").seed == 0 and capfd.readouterr() == ("", "")


def test_same_seed_same_run(dataset):
    (left, first), (right, second) = train(dataset), train(dataset)
    assert first.drop(columns="seconds").equals(second.drop(columns="seconds"))
    assert equal_weights(left, right)
    assert train(dataset, seed=1)[1].loss.tolist() != first.loss.tolist()


def test_each_process_has_dropout_of_its_own(dataset, monkeypatch):
    losses = {}
    for rank in (0, 1):
        monkeypatch.setattr(devices, "rank", lambda rank=rank: rank)  # of batches each still has all rows
        for dropout in (0.0, 0.2):
            settings = TINY.change(dropout=dropout)
            losses[rank, dropout] = Trainer(new_model(dataset, settings, device=CPU), dataset, settings).train_epoch()
    assert losses[0, 0.0] == losses[1, 0.0] and losses[0, 0.2] != losses[1, 0.2]


def test_learning_rate_of_a_run_rises_then_falls(dataset):
    rates = []
    settings = TINY.change(epochs=5, warmup_fraction=0.2)
    train(dataset, settings, on_step=lambda trainer, _: rates.append(trainer.schedule.get_last_lr()[0] / 2e-3))
    assert rates[:3] == pytest.approx([0.5, 0.75, 1]) and len(rates) == 20  # after each step; four make an epoch
    assert rates[3:] == sorted(rates[3:], reverse=True) and rates[-1] == pytest.approx(0)


def test_learning_rate_by_hand():
    share = warmup_cosine(TINY.change(epochs=10, warmup_fraction=0.1).training, steps=10)
    rates = [share(step) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.5) and rates[100] == pytest.approx(0)


@pytest.mark.parametrize("when", [(2, None), (2, 1), (0, 2)])
def test_interrupted_run_goes_on_as_if_nothing_had_happened(dataset, tmp_path, when):
    whole, expected = train(dataset)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, folder=tmp_path, **interrupt_after(*when))
    if when[0]:
        assert len(load(tmp_path).history) <= 2  # the best epoch so far can be used already
    resumed, history = train(dataset, folder=tmp_path)
    assert history.drop(columns="seconds").equals(expected.drop(columns="seconds"))
    assert equal_weights(whole, resumed)
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == FINISHED


def test_new_models_know_nothing_of_the_held_out_films(dataset):
    """Another validation and test film for everybody leaves the start from counts as it was; without it nothing
    is counted."""
    tokens = dataset.sequences.tokens.copy()
    ends = dataset.sequences.offsets[1:]
    tokens[ends - 1], tokens[ends - 2] = tokens[ends - 2], tokens[ends - 1]
    tokens[ends - 1] = tokens[ends - 1] % len(dataset.vocabulary) + 1
    other = Dataset(dataset.vocabulary, replace(dataset.sequences, tokens=tokens))
    warm = new_model(dataset, TINY)
    assert equal_weights(warm, new_model(other, TINY))
    cold = new_model(dataset, TINY.change(start="random"))
    assert not equal_weights(warm, cold) and not cold.item_bias.any()


OTHERS = {
    "dropout": ({"dropout": 0.3}, 0, "dropout is 0.2, not 0.3"),
    "start": ({"start": "random"}, 0, "start is counts, not random"),
    "epochs": ({"epochs": 8}, 0, "epochs is 3, not 8"),
    "users": ({"max_users": 60}, 0, "max_users is 120, not 60"),
    "seed": ({}, 1, "seed is 0, not 1"),
}


@pytest.mark.parametrize(("changes", "seed", "difference"), OTHERS.values(), ids=OTHERS)
def test_unfinished_run_of_other_settings_is_left_alone(dataset, tmp_path, changes, seed, difference):
    with pytest.raises(KeyboardInterrupt):
        train(dataset, folder=tmp_path, **interrupt_after(1))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    settings = TINY.change(**changes)
    with pytest.raises(
        ValueError, match=r"holds an unfinished run of .*--out DIR.*, or delete .*unfinished\.pt"
    ) as found:
        train(load_dataset(settings.data), settings, tmp_path, seed)
    assert difference in str(found.value) and "layers" not in str(found.value)  # what is the same is not named
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_unfinished_run_from_other_weights_or_on_other_data_is_left_alone(dataset, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(dataset, folder=tmp_path, **interrupt_after(1))
    changed = new_model(dataset, TINY, device=CPU)
    torch.nn.init.zeros_(changed.item_bias)
    with pytest.raises(ValueError, match=r"of another kind \(initial weights is .*pass an untrained model of the same"):
        fit(changed, dataset, TINY, folder=tmp_path)
    other_items = Dataset(Vocabulary(dataset.vocabulary.items + 1), dataset.sequences)
    with pytest.raises(ValueError, match=r"of another kind \(data is \w+, not \w+\)"):
        train(other_items, folder=tmp_path)
    half = Dataset(dataset.vocabulary, dataset.sequences.rows(np.arange(60)))
    with pytest.raises(ValueError, match=r"of another kind \(data is"):
        train(half, folder=tmp_path)


def test_run_without_a_whole_epoch_changes_nothing(dataset, tmp_path):
    train(dataset, TINY.change(epochs=1), folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, folder=tmp_path, seed=1, **interrupt_after(0, step=1))
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == FINISHED and load(tmp_path).seed == 0


def with_checksum(content):
    return hashlib.sha256(content).digest() + content


def saved_by_torch(value):
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


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


@pytest.mark.parametrize("content", [b"", b"no archive", [1, 2], {"format": FORMAT}, {"format": FORMAT, "run_key": 3}])
def test_what_is_no_unfinished_run_says_what_to_delete(dataset, tmp_path, content):
    """Its checksum is right: nothing was damaged on its way to the disk."""
    content = content if isinstance(content, bytes) else saved_by_torch(content)
    (tmp_path / UNFINISHED).write_bytes(with_checksum(content))
    with pytest.raises(ValueError, match=r"unfinished\.pt is damaged \(\w+\); delete it to start over"):
        train(dataset, folder=tmp_path)


def test_unfinished_run_of_an_older_version_is_left_alone(dataset, tmp_path):
    """As that version wrote it: without a format number, and the run's key under another name."""
    with pytest.raises(KeyboardInterrupt):
        train(dataset, folder=tmp_path, **interrupt_after(1))
    path = tmp_path / UNFINISHED
    state = torch.load(io.BytesIO(path.read_bytes()[32:]), weights_only=True)
    assert state.pop("format") == FORMAT
    state["identity"] = {"preset": {"name": "tiny"}, "seed": state.pop("run_key")["seed"]}
    path.write_bytes(with_checksum(saved_by_torch(state)))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"of another version of this package; finish it with that one, or delete it"):
        train(dataset, folder=tmp_path)
    assert path.read_bytes() == before


def test_run_of_a_log_that_has_moved_goes_on(dataset, tmp_path):
    here = Dataset(dataset.vocabulary, dataset.sequences)
    with pytest.raises(KeyboardInterrupt):
        train(here, TINY.change(ratings_file="old/log.csv", items_file="old/items.csv"), tmp_path, **interrupt_after(1))
    moved = TINY.change(ratings_file="new/log.csv", items_file="new/items.csv")
    assert len(train(here, moved, tmp_path)[1]) == 3


def test_finished_models_are_never_lost(dataset, tmp_path, capsys):
    fast = TINY.change(epochs=1)
    first = [(train(dataset, fast, tmp_path, seed), (tmp_path / "model.safetensors").read_bytes()) for seed in range(3)]
    assert [load(tmp_path / part).seed for part in ("previous-1", "previous-2", ".")] == [0, 1, 2]
    assert (tmp_path / "previous-1" / "model.safetensors").read_bytes() == first[0][1]
    printed = capsys.readouterr().out
    assert "previous-2" in printed and str(tmp_path / "model.safetensors") in printed


def test_whenever_it_is_stopped_a_finished_model_survives(tmp_path, monkeypatch):
    """A crash before each of the renames of a run, two times over, then the run again: nothing of the past is lost."""
    fast = TINY.change(max_users=30, epochs=2)
    few = load_dataset(fast.data)
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
        fit(model, dataset, TINY)


def test_weights_that_are_no_numbers_after_the_last_step_stop_the_run(dataset):
    settings = TINY.change(batch_size=len(dataset.split.train), learning_rate=1e38)  # one step an epoch
    with pytest.raises(FloatingPointError, match="a weight is not finite after epoch 1; train with a lower learning"):
        fit(new_model(dataset, settings), dataset, settings)


def test_model_of_another_vocabulary_is_refused(dataset):
    model = new_model(dataset, TINY)
    other = Dataset(Vocabulary(np.arange(50)), rows([1, 2, 3], [4, 5, 6]))
    with pytest.raises(ValueError, match="items, the data 50"):
        fit(model, other, TINY)


def test_model_of_other_settings_is_refused(dataset):
    with pytest.raises(ValueError, match=r"the model was built with .*width=32.*, and the settings have .*width=16"):
        fit(new_model(dataset, TINY), dataset, TINY.change(width=16))


def test_weight_decay_spares_biases_and_norms(small_model):
    decayed, spared = parameter_groups(small_model, 0.1)
    names = {id(parameter): name for name, parameter in small_model.named_parameters()}
    assert all("norm" in names[id(p)] or "bias" in names[id(p)] for p in spared["params"])
    assert not any("norm" in names[id(p)] or "bias" in names[id(p)] for p in decayed["params"])
    assert len(decayed["params"]) + len(spared["params"]) == len(names)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0)


def test_validation_is_on_a_random_sample_of_the_users(dataset):
    settings = TINY.change(validation_users=20)
    samples = [Trainer(new_model(dataset, settings), dataset, settings, seed).holdout for seed in (0, 1)]
    users = [sample.histories.users.tolist() for sample in samples]
    assert [len(sample) for sample in samples] == [20, 20] and users[0] != users[1]
    assert dataset.sequences.users[:20].tolist() not in users


def test_presets(monkeypatch):
    assert list(PRESETS) == [
        "tiny",
        "small",
        "medium",
        "ml-1m",
        "movietweetings",
        "beauty",
        "ml-20m",
        "ml-25m",
        "ml-32m",
    ]
    assert get_preset().preset == "tiny"  # conftest.py sets BERTREC_PRESET
    monkeypatch.delenv("BERTREC_PRESET")
    assert get_preset().preset == "small"
    with pytest.raises(ValueError, match=r"no preset 'huge'.*tiny, small, medium, ml-1m"):
        get_preset("huge")
    with pytest.raises(ValueError, match=r"no recipe 'ours'.*bert4rec, modern-cloze, modern-next, modern-both"):
        get_preset("tiny", "ours")
    with pytest.raises(ValueError, match=r"the setting dropout is -0\.1"):
        get_preset("tiny").change(dropout=-0.1)


def test_recipes_are_what_they_are_called():
    chosen = {recipe: get_preset("small", recipe) for recipe in RECIPES}
    networks = {recipe: settings.model.network for recipe, settings in chosen.items()}
    assert networks == {recipe: recipe.split("-")[0] for recipe in RECIPES}
    shares = {recipe: (settings.training.p_causal, settings.training.p_cloze) for recipe, settings in chosen.items()}
    assert shares["bert4rec"] == shares["modern-cloze"] == (0, 1) and shares["modern-next"] == (1, 0)
    assert sum(shares["modern-both"]) < 1
    assert [recipe for recipe, settings in chosen.items() if settings.model.causal] == ["modern-next"]
    assert [recipe for recipe, settings in chosen.items() if settings.start == "random"] == ["bert4rec"]


def test_a_model_of_a_data_frame_is_of_no_release(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table = [(user, f"book {(user + step) % 12}", step) for user in range(20) for step in range(6)]
    frame = pd.DataFrame(table, columns=["user", "item", "timestamp"])
    data = build_dataset(from_frame(frame, noun="book"), 1)
    settings = TINY.change(epochs=1, min_item_ratings=1, max_users=None, repeats="first")
    with pytest.raises(
        ValueError, match=r"have 20 users, and the settings max_users=19; settings.change\(max_users=None"
    ):
        fit(new_model(data, settings), data, settings.change(max_users=19))
    fit(new_model(data, settings), data, settings.change(max_users=30), folder="books")  # which are more than there are
    of_ten = build_dataset(from_frame(frame, noun="book"), 1, max_users=10)
    fit(new_model(of_ten, settings), of_ten, settings.change(max_users=10), folder="ten", verbose=False)
    assert [load(folder).settings.data.max_users for folder in ("books", "ten")] == [None, 10]
    for command in (["evaluate", "books"], ["train", "books", "--continue"]):
        with pytest.raises(
            SystemExit, match="trained on a data frame, which is not kept; give its rows with --ratings FI"
        ):
            main(command)
    with pytest.raises(SystemExit, match="at least one item the model knows"):
        main(["recommend", "books", "--history", "nonsense"])
    frame.to_csv("log.csv", index=False)
    main(["evaluate", "books", "--ratings", "log.csv"])
    main(["train", "books", "--continue", "--ratings", "log.csv"])
    assert "nothing that is trained on has changed" in capsys.readouterr().out
