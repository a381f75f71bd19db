"""The parts of benchmarks/ that decide what a table says."""

import itertools
import json
import time
from dataclasses import asdict

import baselines
import ensemble
import mistakes
import numpy as np
import pandas as pd
import peer_worker
import peers
import publish_weights
import pytest
import record_run
import recording
import run_queue
import scale
import step_parts
import table
import torch
import train_speed
import variants
from scipy import stats
from scipy.special import log_softmax

from bertrec_utils.common import PROJECT
from bertrec_utils.evaluation import baselines as evaluation_baselines
from bertrec_utils.evaluation.baselines import PCTM, linear_baseline
from bertrec_utils.evaluation.mixture import fit_mixture, standardise
from bertrec_utils.evaluation.ranking import PROTOCOLS, bootstrap_interval, evaluate, per_user_metrics, target_ranks
from bertrec_utils.model.losses import cross_entropy
from bertrec_utils.model.masking import build_batch, training_batches
from bertrec_utils.model.modern import build_network
from bertrec_utils.settings import DEFAULT_RECIPE, PRESETS, get_preset
from bertrec_utils.training.checkpoints import load
from conftest import model_settings, rows, settings

ITEMS = 40


@pytest.fixture
def sequences():
    random = np.random.default_rng(0)
    return rows(*((random.permutation(ITEMS)[: 5 + row] + 1).tolist() for row in range(20)))


@pytest.fixture
def results(tmp_path, monkeypatch):
    """An empty folder of results, and a preset tiny of one epoch."""
    monkeypatch.setattr(recording, "RESULTS", tmp_path)
    monkeypatch.setitem(PRESETS, "tiny", PRESETS["tiny"] | {"epochs": 1})
    return tmp_path


def call(monkeypatch, module, *arguments):
    """`python benchmarks/MODULE.py ARGUMENTS`"""
    monkeypatch.setattr("sys.argv", [f"{module.__name__}.py", *arguments])
    module.main()


def batches_of(training, sequences):
    return list(training_batches(sequences, ITEMS + 1, training, 50, np.random.default_rng(0)))


def test_ablations_take_out_the_targets_that_their_names_say(sequences):
    def counts(name):
        """How many items an epoch of the ablation masks in the history, and how many targets it has."""
        batches = batches_of(variants.ABLATIONS[name].settings("tiny").training, sequences)
        return sum((b.history == ITEMS + 1).sum() for b in batches), sum((b.labels > 0).sum() for b in batches)

    masked, targets = counts("cloze-only")
    assert masked == targets
    masked, targets = counts("next-only")
    assert masked < 0.1 * targets  # only where a prefix leaves no other target
    whole = variants.ABLATIONS["full"]
    assert whole.settings("tiny") == get_preset("tiny") and whole.build is build_network


def learned_positions():
    torch.manual_seed(0)
    return variants.LearnedPositions(ITEMS, model_settings(width=8, heads=1))


def test_learned_positions_are_the_only_ones():
    model = learned_positions()
    forth, back = rows([1, 2, 3, 4]), rows([4, 3, 2, 1])
    assert not np.allclose(model.score(forth), model.score(back), atol=1e-6)
    torch.nn.init.zeros_(model.positions.weight)
    assert np.allclose(model.score(forth), model.score(back), atol=1e-6)


def test_learned_positions_count_from_the_newest_item():
    model = learned_positions()
    alone, beside_longer = model.score(rows([1, 2, 3])), model.score(rows([1, 2, 3], [9, 8, 7, 6, 5]))[:1]
    np.testing.assert_allclose(alone, beside_longer, atol=1e-5)  # padding on the left moves nothing


def test_the_position_of_the_test_is_learned(sequences):
    model = learned_positions()
    for batch in batches_of(get_preset("tiny").training, sequences):
        model(batch).backward()
    seen = set()
    model.positions.register_forward_hook(lambda module, inputs, output: seen.update(inputs[0].flatten().tolist()))
    model.score(rows(list(range(1, 11))))
    assert 0 in seen
    assert model.positions.weight.grad[sorted(seen)].any(1).all()


def test_a_study_records_each_variant_once(results, monkeypatch):
    call(monkeypatch, variants, "ablations", "tiny", "--only", "classic")
    found = recording.read_result("ablations/tiny-classic")
    assert found["title"] == variants.ABLATIONS["classic"].title
    assert found["with_linear"] >= found["history"][0]["ndcg@10"]  # no baseline at all is one of the mixtures
    with monkeypatch.context() as patched:
        patched.setattr(variants, "run", None)  # training again would be an error
        call(patched, variants, "ablations", "tiny", "--only", "classic")
    monkeypatch.setitem(PRESETS, "tiny", PRESETS["tiny"] | {"width": 16})
    call(monkeypatch, variants, "ablations", "tiny", "--only", "classic")
    assert recording.read_result("ablations/tiny-classic")["settings"]["model"]["width"] == 16


def test_recorded_variants_are_those_of_the_studies():
    """Every recorded run would be found again: same title, settings and seed."""
    for study, preset, recorded in (
        ("ablations", "small", 6),
        ("sampled-softmax", "ml-1m", 4),
        ("cloze-to-next", "small", 7),
    ):
        study, found = variants.STUDIES[study], 0
        for name, variant in study.variants.items():
            file = study.file(preset, name) + ("-h200" if study.runs_key == "rows" else "")
            wanted = {"title": variant.title, "settings": asdict(variant.settings(preset)), "seed": 0}
            found += any(variants.is_same(run, wanted) for run in variants.recorded_runs(file, study.runs_key))
        assert found == recorded


def test_the_network_of_the_notebook_loses_the_newest_item_and_sees_padding():
    torch.manual_seed(0)
    model = mistakes.TheNotebooks(ITEMS, get_preset("tiny", "bert4rec").model)
    assert model.item_embedding.weight.std() > 0.9
    np.testing.assert_allclose(*model.score(rows([1, 2, 3], [1, 2, 4])), atol=1e-5)
    alone, padded = rows([1, 2, 3]), rows([1, 2, 3], [9, 8, 7, 6, 5])
    assert not np.allclose(model.score(alone), model.score(padded)[:1], atol=1e-5)


def mistaken(build):
    torch.manual_seed(0)
    model = build(ITEMS, model_settings(width=8, heads=1, max_length=20))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_padding_that_is_seen_changes_the_scores():
    """It is the same network otherwise: a history that fills all places has the same scores."""
    sound, sees = mistaken(build_network), mistaken(mistakes.SeesPadding)
    short, full = rows([1, 2, 3]), rows(list(range(1, 21)))
    assert not np.allclose(sound.score(short), sees.score(short), atol=1e-3)
    np.testing.assert_allclose(sound.score(full), sees.score(full), atol=1e-5)
    batch = build_batch(np.arange(1, 6)[None], np.array([5]), *np.eye(5, dtype=bool)[[[3], [4]]], ITEMS + 1)
    assert torch.isfinite(sees(batch)) and sees(batch) != sound(batch)


def test_a_large_start_is_that_of_pytorch():
    weights = mistakes.LargeStart(1000, model_settings()).item_embedding.weight.detach().numpy()
    assert weights[1:].std() == pytest.approx(1, abs=0.01) and not weights[0].any()


def test_mistakes_of_measurement_by_hand(dataset):
    class Newest:
        """Scores the item after the newest one it is shown."""

        def score(self, histories):
            return np.eye(9)[histories.last()]

    assert mistakes.OverTheNewest(Newest()).score(rows([1, 2, 3], [4, 5])).argmax(1).tolist() == [2, 4]

    class Equals:
        def score(self, histories):
            return np.ones((len(histories), 9))

    holdout = baselines.Holdout(rows([1, 2], [3]), np.array([9, 4]))
    assert mistakes.ranks_with_ties_won(Equals(), holdout).tolist() == [1, 1]
    assert mistakes.chosen_on_the_test(dataset).split.validation is dataset.split.test


def test_ties_in_the_order_of_ids_put_the_highest_last(dataset):
    by_id = mistakes.ties_by_id(dataset)
    assert len(by_id.sequences) == len(dataset.sequences)
    times = dataset.log.ratings.set_index(["user", "item"]).timestamp
    for sequences, is_sorted in ((by_id.sequences, True), (dataset.sequences, False)):
        pairs = pd.MultiIndex.from_arrays(
            [np.repeat(sequences.users, sequences.lengths), dataset.vocabulary.item_ids(sequences.tokens)]
        )
        frame = times[pairs].reset_index()
        ordered = frame.sort_values(["user", "timestamp", "item"], kind="stable")
        assert frame.item.equals(ordered.item.reset_index(drop=True)) == is_sorted


def test_what_follows_a_target_is_hidden_from_it():
    """A change of what follows changes its loss, unless that is hidden from it and from the items before it."""
    masked = np.array([[False, False, True, False, False]])
    batches = [
        build_batch(np.array([items]), np.array([5]), masked, np.zeros_like(masked), ITEMS + 1)
        for items in ([1, 2, 3, 4, 5], [1, 2, 3, 7, 6])
    ]

    def losses(causal, share):
        torch.manual_seed(0)
        model = variants.HidesTheRight(ITEMS, model_settings(causal=causal, dropout=0.0), share)
        torch.nn.init.normal_(model.item_embedding.weight)
        return [model(batch).item() for batch in batches]

    for causal, share, is_hidden in ((False, 0, False), (False, 1, False), (True, 0, False), (True, 1, True)):
        one, other = losses(causal, share)
        assert (one == pytest.approx(other, abs=1e-6)) == is_hidden
    assert losses(False, 0) != losses(False, 1)


def next_items() -> variants.NextItems:
    torch.manual_seed(0)
    model = variants.NextItems(ITEMS, model_settings(width=8, heads=1, dropout=0.0))
    for parameter in model.parameters():  # away from the tiny initial weights, so that mistakes show
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_the_authors_network_predicts_each_next_item_from_those_before_it():
    """The loss is the mean of -log p of each item, scored after the items before it."""
    model, items = next_items(), [5, 9, 2, 7]

    def loss_and_scores(targets):
        is_next = np.array([[position in targets for position in range(4)]])
        batch = build_batch(np.array([items]), np.array([1]), np.zeros_like(is_next), is_next, ITEMS + 1)
        scores = log_softmax(model.score(rows(*(items[:position] for position in targets))), axis=1)
        expected = -np.mean([scores[row, items[position] - 1] for row, position in enumerate(targets)])
        with torch.no_grad():
            return model(batch).item(), pytest.approx(expected, abs=1e-5)

    loss, expected = loss_and_scores([3])
    assert loss == expected
    torch.nn.init.zeros_(model.position_embedding.weight)  # the newest of a shorter history has the last position, too
    loss, expected = loss_and_scores([1, 2, 3])
    assert loss == expected


def test_padding_changes_nothing_in_the_authors_network_with_next_items():
    model = next_items()
    alone, beside_longer = model.score(rows([1, 2, 3])), model.score(rows([1, 2, 3], [9, 8, 7, 6, 5]))[:1]
    np.testing.assert_allclose(alone, beside_longer, atol=1e-5)


def test_the_grid_crosses_every_network_objective_and_start():
    cells = [tuple(variant.title.split(", ")) for variant in variants.GRID]
    networks, objectives, starts = map(set, zip(*cells, strict=True))
    assert set(cells) >= set(itertools.product(networks, objectives - {"both"}, starts)) and len(networks) == 4
    settings_of_all = [variant.settings("small") for variant in variants.GRID]
    assert len({(each.model.width, each.training.learning_rate, each.training.epochs) for each in settings_of_all}) == 1


def test_the_grid_keeps_the_ranks_of_the_validation_users(results, monkeypatch, dataset):
    name = "authors', next, counts"
    study = variants.STUDIES["grid"]
    variant = study.variants[name]._replace(changes=study.variants[name].changes | {"epochs": 1})
    monkeypatch.setitem(study.variants, name, variant)
    call(monkeypatch, variants, "grid", "tiny", "--only", name)
    [run] = recording.read_result("grid-tiny")["runs"]
    ranks = table.all_ranks("grid-tiny")[f"{name}, seed 0"]["full"]
    found = per_user_metrics(ranks, [10])["ndcg@10"].mean()
    assert found == pytest.approx(run["history"][0]["ndcg@10"]) and len(ranks) == len(dataset.split.validation)


def test_the_starting_notebook_trains_at_one_learning_rate():
    study, variant = variants.STUDIES["starting-notebook"], variants.THE_NOTEBOOK
    found = variants.run(study, variant, variant.settings("tiny").change(epochs=2), seed=0)
    assert [row["learning_rate"] for row in found["history"]] == [1e-3, 1e-3]
    assert set(found["test"]) == {*PROTOCOLS, "notebook"}


def test_a_good_model_is_measured_with_every_mistake():
    study = variants.STUDIES["mistakes"]
    none, third = study.variants["none"], study.variants["a third of the epochs"]
    assert [variant.settings("small").training.epochs for variant in (none, third)] == [16, 5]
    found = variants.run(study, none, none.settings("tiny").change(epochs=1), seed=0)
    ndcg = {
        name: {protocol: row["ndcg@10"] for protocol, row in test.items()}
        for name, test in found.items()
        if name not in ("history", "seconds_before")
    }
    assert ndcg["seen items among the candidates"]["full"] <= ndcg["test"]["full"]
    assert ndcg["of popularity, ties won"]["full"] >= ndcg["of popularity, ties half"]["full"]


@pytest.mark.parametrize("recipe", variants.TRIALS)
def test_each_recipe_has_ten_trials_to_the_last_of_as_many_epochs(recipe):
    trials = [variant.settings("small") for variant in variants.TUNING if variant.recipe == recipe]
    assert len({str(trial) for trial in trials}) == len(trials) == 10
    budget = 32 if recipe == "bert4rec" else 8  # after 8 it has hardly left the plateau
    assert {trial.training.epochs for trial in trials} == {budget}


def test_the_metrics_of_the_notebook_by_hand():
    class Scorer:
        def score(self, histories):
            return np.tile(np.arange(200.0), (len(histories), 1))

    holdout = baselines.Holdout(rows([1], [2]), np.array([200, 1]))  # the best item of all, and the worst
    assert mistakes.metrics_of_the_notebook(Scorer(), holdout) == {"hit@10": 0.5, "ndcg@10": 0.5}


def test_a_finished_run_is_only_tested(dataset, tmp_path, monkeypatch):
    tiny, folder = settings(epochs=1), tmp_path / "tiny-seed0"
    first = record_run.record(tiny, 0, folder)
    monkeypatch.setattr(record_run, "fit", None)  # training again would be an error
    assert record_run.record(tiny, 0, folder) == first
    assert not record_run.is_finished(folder, tiny, 1, dataset)
    assert not record_run.is_finished(folder, tiny.change(epochs=2), 0, dataset)
    (folder / record_run.UNFINISHED).touch()
    assert not record_run.is_finished(folder, tiny, 0, dataset)


def test_a_recorded_run_is_not_repeated(results, monkeypatch, capsys):
    monkeypatch.setattr(record_run, "PROJECT", results)
    call(monkeypatch, record_run, "tiny", "--seeds", "0")
    monkeypatch.setattr(record_run, "record", None)  # running again would be an error
    call(monkeypatch, record_run, "tiny", "--seeds", "0")
    assert capsys.readouterr().out.endswith("tiny-seed0 is recorded\n")
    assert not record_run.is_recorded("tiny-seed0", get_preset("tiny").change(dropout=0.3))
    short = recording.read_result("tiny-seed0")
    short["history"].pop()
    recording.path_of("tiny-seed0").write_text(json.dumps(short))
    assert not record_run.is_recorded("tiny-seed0", get_preset("tiny"))


def test_the_queue_names_what_can_be_run(monkeypatch, capsys):
    call(monkeypatch, run_queue, "--dry-run")
    jobs = capsys.readouterr().out.splitlines()
    assert len(set(jobs)) == len(jobs) > 20
    for job in jobs:
        script, *arguments = job.split()
        assert (PROJECT / "benchmarks" / script).is_file()
        study, preset = arguments[:2] if script == "variants.py" else (None, arguments[0])
        assert preset in PRESETS and (study is None or study in variants.STUDIES)


def test_the_queue_has_every_recorded_run():
    commands = {recording.read_result(path.stem)["command"] for path in recording.RESULTS.glob("*-seed*.json")}
    assert len(commands) > 40
    queue = {f"python benchmarks/{job}".replace(f" --recipe {DEFAULT_RECIPE}", "") for job in run_queue.QUEUE}
    assert commands <= queue


def test_recorded_runs_are_what_their_commands_make():
    runs = [path for preset in ("small", "medium", "ml-1m") for path in recording.RESULTS.glob(f"{preset}-*seed*.json")]
    assert len(runs) >= 21
    for path in runs:
        run = recording.read_result(path.stem)
        wanted = get_preset(run["settings"]["preset"], run["recipe"], run["start"])
        assert recording.settings_of_today(run["settings"]) == asdict(wanted)
        assert path.stem == f"{wanted.name}-seed{run['seed']}"
        assert run["command"] == record_run.command_of(wanted, run["seed"])
    random_start = get_preset("small", "modern-next", "random")
    command = "python benchmarks/record_run.py small --recipe modern-next --start random --seeds 3"
    assert record_run.command_of(random_start, 3) == command


@pytest.fixture
def two_models():
    """Of 300 users: one model with three seeds, one with a single seed."""
    random = np.random.default_rng(0)
    ranks = [{"full": random.integers(1, 30, 300)} for _ in range(4)]
    return {"one": table.Model(ranks[:3], []), "other": table.Model(ranks[3:], [])}


def values_of(models, metric="ndcg@10"):
    return [[per_user_metrics(ranks["full"], [10])[metric] for ranks in model.ranks] for model in models.values()]


def test_a_difference_has_the_interval_of_its_users_and_a_wider_one_of_its_seeds(two_models):
    found = table.differences_of(two_models)["one - other"]
    one, [other] = values_of(two_models)
    interval = bootstrap_interval(np.mean(one, axis=0) - other)  # of scipy
    assert [found[name] for name in interval._fields] == pytest.approx(list(interval), abs=1e-12)
    assert found["seeds"] == [3, 1] and found["verdict"] == interval.verdict() == "undecided"
    seeds_too = found["over seeds too"]
    assert seeds_too["high"] - seeds_too["low"] > interval.high - interval.low
    assert table.turned(table.turned(found)) == found
    there = dict(reversed(two_models.items()))
    back = table.turned(table.differences_of(there)["other - one"])
    assert back["mean"] == pytest.approx(found["mean"]) and back["verdict"] == found["verdict"]


def test_a_model_of_one_seed_has_the_variance_of_those_with_several_and_a_baseline_has_none(two_models):
    by_hand = np.var([values.mean() for values in values_of(two_models)[0]], ddof=1)
    assert table.seed_variances(two_models, "ndcg@10") == pytest.approx({"one": by_hand, "other": by_hand})
    one, [other] = values_of(two_models)
    users = np.var(np.mean(one, axis=0) - other, ddof=1) / 300
    for is_trained, of_seeds in ((True, by_hand / 3 + by_hand), (False, by_hand / 3)):
        models = two_models | {"other": two_models["other"]._replace(is_trained=is_trained)}
        seeds_too = table.differences_of(models)["one - other"]["over seeds too"]
        width = 2 * 1.959964 * np.sqrt(users + of_seeds)
        assert seeds_too["high"] - seeds_too["low"] == pytest.approx(width)


def test_networks_and_mixtures_vary_each_in_their_own_way(two_models):
    """The mixtures of one network do not change with its seed."""
    same = two_models["one"]._replace(ranks=two_models["one"].ranks[:1] * 3)
    mixtures = {"one-with-linear": same, "other-with-linear": two_models["other"]}
    alone, of_all = table.seed_variances(two_models, "ndcg@10"), table.seed_variances(two_models | mixtures, "ndcg@10")
    assert alone["one"] > 0
    assert of_all == pytest.approx(alone | dict.fromkeys(mixtures, 0), abs=1e-12)


def test_without_seeds_a_p_value_is_that_of_a_paired_test(two_models):
    models = {name: model._replace(ranks=model.ranks[:1]) for name, model in two_models.items()}
    for metric in ("ndcg@10", "hit@10"):
        [one], [other] = values_of(models, metric)
        shown = table.difference(one, other, 0.0)
        assert shown["p"] == pytest.approx(stats.ttest_rel(one, other).pvalue, rel=0.01)  # 300 users: nearly normal
        assert shown["mean"] == pytest.approx(np.mean(one - other))
    assert table.difference(one, one, 0.0)["p"] == 1
    assert table.difference(one + 0.25, one, 0.0)["p"] == pytest.approx(0)


@pytest.mark.parametrize(
    ("verdict", "p", "shown"),
    [("better", 0.01, "better"), ("worse", 0.05, "undecided after Holm"), ("equivalent", 0.9, "equivalent")],
)
def test_no_difference_is_called_one_that_holms_correction_does_not_leave(verdict, p, shown):
    assert table.corrected(verdict, p) == shown


def test_holm_by_hand():
    """.01 x 4, .02 x 3, .03 x 2 (not below the one before it), .5 x 1."""
    assert table.holm(np.array([0.03, 0.01, 0.5, 0.02])) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert table.holm(np.array([0.4, 0.9])) == pytest.approx([0.8, 0.9])


def test_an_ensemble_is_the_mean_of_log_probabilities(dataset, results, monkeypatch):
    for seed in (0, 1):
        record_run.record(settings(epochs=1), seed, results / "runs" / f"tiny-seed{seed}")
    monkeypatch.setattr(ensemble, "PROJECT", results)
    call(monkeypatch, ensemble, "tiny", "--seeds", "0", "1", "--sizes", "2")
    [group] = recording.read_result("ensemble-tiny")["groups"]
    networks = [load(results / "runs" / f"tiny-seed{seed}").model for seed in (0, 1)]
    baseline = linear_baseline(dataset.split.train, len(dataset.vocabulary))

    class Mean:
        weight = 0.0

        def score(self, histories):
            logs = [log_softmax(network.score(histories), axis=1) for network in networks]
            return sum(logs) / 2 + self.weight * standardise(baseline.score(histories))

    alone, mixed = Mean(), Mean()
    mixed.weight = group["linear_weight"]
    for scorer, test in ((alone, "test"), (mixed, "test-with-linear")):
        assert group[test] == pytest.approx(evaluate(scorer, dataset.split.test, ["full"])["full"], abs=1e-3)


def test_neighbouring_seeds_are_grouped():
    assert ensemble.groups([3, 5, 8], 2) == [[3, 5], [5, 8], [8, 3]]
    assert ensemble.groups([3, 5, 8], 3) == [[3, 5, 8]]


def test_a_baseline_is_tried_once_with_each_setting_and_tested_where_the_best_is_new(results, monkeypatch, dataset):
    built = []

    def ease(*arguments, ridge):
        built.append(ridge)
        return baselines.EASE(*arguments, ridge=ridge)

    tried = {"ease": baselines.Baseline(ease, grid := [{"ridge": 50.0}]), "pctm": baselines.Baseline(PCTM, [{}])}
    monkeypatch.setattr(baselines, "BASELINES", tried)
    call(monkeypatch, baselines, "tiny")
    first = recording.read_result("baselines-tiny")
    assert built == [50.0, 50.0, 50.0]  # tried, tested, timed
    call(monkeypatch, baselines, "tiny")
    assert built == [50.0] * 3 and recording.read_result("baselines-tiny") == first
    grid.append({"ridge": 1e9})  # much too strong
    call(monkeypatch, baselines, "tiny")
    second = recording.read_result("baselines-tiny")["models"]["ease"]
    assert built == [50.0] * 3 + [1e9] and [each for _, each in second["tried"]] == grid
    assert second["settings"] == {"ridge": 50.0} and second["test"] == first["models"]["ease"]["test"]
    grid.append({"ridge": 60.0})
    call(monkeypatch, baselines, "tiny")
    third = recording.read_result("baselines-tiny")["models"]["ease"]
    best = max((50.0, 60.0), key=lambda ridge: dict((each["ridge"], found) for found, each in third["tried"])[ridge])
    assert third["settings"] == {"ridge": best}


def test_on_sealed_data_a_baseline_has_the_settings_of_small_and_large_catalogues_no_matrix_of_all_pairs(
    results, monkeypatch, capsys
):
    tried = {"ease": baselines.Baseline(baselines.EASE, [{"ridge": 50.0}]), "pctm": baselines.Baseline(PCTM, [{}])}
    monkeypatch.setattr(baselines, "BASELINES", tried)
    monkeypatch.setattr(baselines, "SEALED", ("tiny",))
    monkeypatch.setattr(recording, "SEALED", ("tiny",))
    chosen = {"ease": {"ridge": 70.0}, "pctm": {"window": 9}}
    recording.write_result("baselines-small", "", models={name: {"settings": each} for name, each in chosen.items()})
    for module in (baselines, record_run):
        with pytest.raises(ValueError, match=r"tiny is sealed: write results/sealed\.md"):
            call(monkeypatch, module, "tiny")
    (results / "sealed.md").touch()
    call(monkeypatch, baselines, "tiny")
    recorded = recording.read_result("baselines-tiny")["models"]
    assert {name: recorded[name]["settings"] for name in tried} == chosen
    assert [each for _, each in recorded["ease"]["tried"]] == [{"ridge": 70.0}]

    recording.path_of("baselines-tiny").unlink()
    for module in (baselines, recording, evaluation_baselines):
        monkeypatch.setattr(module, "MAX_ITEMS", 10)
    call(monkeypatch, baselines, "tiny")
    assert list(recording.read_result("baselines-tiny")["models"]) == ["pctm", "pctm-with-chain"]
    assert "too many for item-knn, ease, linear" in capsys.readouterr().out


def test_pctm_is_mixed_as_a_network_is(results, monkeypatch, dataset):
    monkeypatch.setattr(baselines, "BASELINES", {"pctm": baselines.Baseline(PCTM, [{"window": 20}])})
    call(monkeypatch, baselines, "tiny")
    recorded = recording.read_result("baselines-tiny")["models"]["pctm-with-linear"]
    train, split = dataset.split.train, dataset.split
    network, linear = PCTM(train, len(dataset.vocabulary), window=20), linear_baseline(train, len(dataset.vocabulary))
    mixture = fit_mixture(network, linear, split.validation)
    assert recorded["settings"] == {"window": 20, "weight": mixture.weight}
    assert recorded["test"]["full"] == evaluate(mixture, split.test, ["full"], progress=False)["full"]
    call(monkeypatch, baselines, "tiny")
    assert recording.read_result("baselines-tiny")["models"]["pctm-with-linear"] == recorded


def test_recent_popularity_knows_nothing_that_is_held_out(dataset):
    ratings = baselines.ratings_of_training(dataset)
    assert len(ratings) == len(dataset.split.train.tokens)
    pairs = pd.MultiIndex.from_frame(ratings[["user", "item"]])
    for holdout in (dataset.split.validation, dataset.split.test):
        held_out = zip(holdout.histories.users, dataset.vocabulary.item_ids(holdout.targets), strict=True)
        assert not pairs.isin(list(held_out)).any()


class Rows(torch.nn.Module):
    """A network of one score per item and of nothing else."""

    def __init__(self, items):
        super().__init__()
        self.scores = torch.nn.Parameter(torch.zeros(items + 1))

    def score(self, sessions):
        """In a library that numbers the items backwards, from 1."""
        return self.scores.detach().expand(len(sessions), -1)


@pytest.mark.parametrize(("patience", "epochs"), [(2, 5), (10, 6)])
def test_a_peer_is_tested_with_the_weights_of_its_best_epoch(dataset, patience, epochs):
    """Who knows how often an item is the target is better than who knows nothing, or the opposite."""
    items, split = len(dataset.vocabulary), dataset.split
    numbers = np.concatenate([[0], np.arange(items, 0, -1)])
    numbers[5] = 0  # an item that it has not seen
    counts = torch.bincount(torch.from_numpy(split.validation.targets), minlength=items + 1)[1:].float()
    network, after = Rows(items), [0.0, -1.0, 1.0, 0.0, 1.0, -1.0]

    def train(on_epoch):
        goes_on, epoch = True, 0
        while goes_on:
            network.scores.data[numbers[1:]] = after[epoch] * counts
            goes_on, epoch = on_epoch(network, numbers, network.score), epoch + 1

    found = peer_worker.to_the_end(train, split, 6, patience)

    class Best:
        def score(self, histories):
            scores = np.tile(counts.numpy(), (len(histories), 1))
            scores[:, 4] = -1.0
            return scores

    quality = [row["ndcg@10"] for row in found["history"]]
    assert len(quality) == epochs and max(quality) == quality[2]
    assert quality[2] == evaluate(Best(), split.validation, ["full"], progress=False)["full"]["ndcg@10"]
    for protocol, ranks in target_ranks(Best(), split.test, progress=False).items():
        np.testing.assert_array_equal(found["ranks"][protocol], ranks)


def test_speed_leaves_out_the_first_steps():
    ends = []

    def train(on_step):
        while True:
            time.sleep(0.2 if len(ends) < 3 else 0.01)
            ends.append(time.perf_counter())
            on_step(7)

    found = peer_worker.speed(train, 0.2)
    assert found["sequences_per_second"] == pytest.approx(7 * (len(ends) - 3) / (ends[-1] - ends[2]), rel=0.05)
    assert found["peak_mb"] > 50


def test_a_peer_is_recorded_once(results, monkeypatch, capsys):
    ranks = {"full": np.array([1.0, 2.5, 30.0])}
    monkeypatch.setattr(peers, "run", lambda *_, **limits: limits | {"ranks": dict(ranks)})
    call(monkeypatch, peers, "tiny", "--only", "recbole-sasrec", "--epochs", "1")
    monkeypatch.setattr(peers, "run", None)  # training again would be an error
    call(monkeypatch, peers, "tiny", "--only", "recbole-sasrec", "--epochs", "1")
    assert capsys.readouterr().out.endswith("recbole-sasrec is recorded\n")
    [model] = recording.read_result("peers-tiny")["models"]
    assert model["settings"] == {"epochs": 1, "patience": 11}
    assert model["test"]["full"]["ndcg@10"] == pytest.approx((1 + 1 / np.log2(3.5)) / 3)
    assert model["origin"]["command"] == "python benchmarks/peers.py tiny --only recbole-sasrec --epochs 1"
    kept = table.kept_ranks("peers-tiny", {"recbole-sasrec": model["test"]})
    np.testing.assert_array_equal(kept["recbole-sasrec"]["full"], ranks["full"])


def test_operations_by_hand():
    """Attention has two products forward and five backward, our loss three: that of the scores, and two gradients."""
    query, key = (torch.ones(2, 3, positions, 8, requires_grad=True) for positions in (4, 5))
    visible = torch.ones(2, 1, 4, 5, dtype=torch.bool)

    def attend():
        torch.nn.functional.scaled_dot_product_attention(query, key, key, attn_mask=visible).sum().backward()

    assert train_speed.operations(attend) == 7 * 2 * (2 * 3 * 4 * 5 * 8)
    states, weight = (torch.ones(rows, 8, requires_grad=True) for rows in (6, ITEMS))
    labels = torch.zeros(6, dtype=torch.int64)

    def lose():
        cross_entropy(states, weight, torch.zeros(ITEMS, requires_grad=True), labels).backward()

    assert train_speed.operations(lose) == 3 * 2 * (6 * 8 * ITEMS)


def test_the_speed_of_our_own_training_is_measured(results, monkeypatch):
    monkeypatch.setattr(train_speed, "NAMES", {})
    monkeypatch.setattr(train_speed, "OURS", {"modern-both": {"width": 16}})
    monkeypatch.setattr(train_speed, "ROUNDS", 1)
    call(monkeypatch, train_speed, "tiny", "--seconds", "0.1")
    row = recording.read_result("train-speed")["models"]["modern-both"]
    assert row["settings"]["width"] == 16 and [row["sequences_per_second"]] == row["rounds"]
    assert row["peak_mb"] > 100 and 0 < row["share_of_matrix_rate"] < 1


def test_steps_are_timed(dataset):
    row = scale.steps_of(dataset, settings(), steps=1, before=1)
    assert row["users/s"] > 0 and row["targets/s"] > row["users/s"] and row["items"] == len(dataset.vocabulary)


def test_the_losses_that_are_timed_are_the_same():
    sides = step_parts.losses(items=50, targets=20)
    values = [side().detach() for side in sides.values()]
    assert len(values) >= 2
    np.testing.assert_allclose(values, values[0], rtol=1e-5)


def test_the_model_cards_are_made_from_the_results():
    for folder, name in publish_weights.RUNS.items():
        card = recording.PROJECT / "pretrained" / folder / "README.md"
        assert card.read_text() == publish_weights.card(folder, name)
