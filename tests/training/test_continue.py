"""Going on from a trained model with the new rows of its log."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bertrec_utils.__main__ import main
from bertrec_utils.common import PROJECT
from bertrec_utils.data.dataset import load_dataset
from bertrec_utils.model.modern import build_network
from bertrec_utils.settings import get_preset
from bertrec_utils.training.checkpoints import MODEL, load, put_back, set_aside
from bertrec_utils.training.initial_weights import carry_over
from bertrec_utils.training.trainer import continued_model, continued_settings, fit, new_model
from bertrec_utils.training.unfinished import UNFINISHED
from conftest import model_settings, rows

NETWORKS = pytest.mark.parametrize("network", ["modern", "bert4rec"])


def random_network(item_count, network):
    torch.manual_seed(0)
    size = 0 if network == "bert4rec" else 4
    model = build_network(item_count, model_settings(network=network, conv_size=size, width=8, max_length=10))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@NETWORKS
def test_weights_are_carried_over_by_hand(network):
    """Of the trained items 1 to 4 the new catalogue has 3, 1 and 4, as its items 1, 2 and 5; its 3, 4 and 6 are new."""
    trained, model = random_network(4, network), build_network(6, random_network(4, network).settings)
    sequences = rows([1, 3, 2, 5], [3, 2], [5, 5, 4, 6], [4])
    counts = np.array([1, 2, 2, 2, 3, 1])
    with torch.no_grad():
        trained.item_bias.copy_(torch.tensor([2 * np.log(3) - 1, 7, 2 * np.log(2) - 1, 2 * np.log(4) - 1]))
    random = model.item_embedding.weight.detach().clone()
    carry_over(model, trained, np.array([3, 1, 0, 0, 4, 0]), sequences)
    old, new = trained.item_embedding.weight.detach().numpy(), model.item_embedding.weight.detach().numpy()
    np.testing.assert_array_equal(new[[0, 1, 2, 5, 7]], old[[0, 3, 1, 4, 5]])  # PAD, the known items, [MASK]
    length = np.median(np.linalg.norm(old[[3, 1, 4]], axis=1))
    means = [old[3] + 2 * old[1] + old[4] / 2, old[4] * 1.5]  # item 3 is next to 1, twice to 2, and two from 5
    for vector, mean in zip(new[[3, 4]], means, strict=True):
        np.testing.assert_allclose(vector, mean * length / np.linalg.norm(mean), rtol=1e-5)
    np.testing.assert_allclose(new[6], old[4] * length / np.linalg.norm(old[4]), rtol=1e-5)  # two from 5
    np.testing.assert_allclose(model.item_bias.detach(), 2 * np.log(counts + 1) - 1, rtol=1e-5)
    for name, value in model.state_dict().items():
        assert name.startswith("item_") or torch.equal(value, trained.state_dict()[name])

    carry_over(model, trained, np.array([3, 1, 0, 0, 4, 0]), rows([1, 2, 5], [3, 4, 6]))  # no neighbour is known
    direction = model.item_embedding.weight[3].detach() / length
    torch.testing.assert_close(direction.norm(), torch.tensor(1.0))
    assert not torch.equal(random[3], torch.zeros(8)) and torch.isfinite(model.item_embedding.weight).all()


@NETWORKS
def test_items_of_equal_counts_give_a_new_one_their_mean_bias(network):
    trained, model = random_network(2, network), random_network(3, network)
    carry_over(model, trained, np.array([1, 2, 0]), rows([1, 2, 3]))
    torch.testing.assert_close(model.item_bias[2], trained.item_bias.mean())


def test_settings_are_those_of_the_preset_and_do_not_shrink_from_day_to_day():
    for settings, epochs in (
        (get_preset("small"), 2),
        (get_preset("small", "bert4rec"), 25),
        (get_preset("tiny").change(epochs=9, learning_rate=1.0), 1),
    ):
        further = continued_settings(settings)
        preset = get_preset(settings.preset, settings.recipe)
        assert further == settings.change(epochs=epochs, learning_rate=preset.training.learning_rate / 2)
        assert continued_settings(further) == further


READERS, BOOKS = 30, 20
FURTHER = ["--set", "epochs=2"]


def write_log(days, path="log.csv", ids=str, without=None):
    """Readers who go through a shelf of books in order; on days 10 and later also through one of new books."""
    lines = []
    for reader in range(READERS):
        for day in range(days):
            book = (reader + day) % BOOKS if day < 10 else BOOKS + (reader + day) % 5
            if book != without:
                lines.append(f"{reader},{ids(book)},{day}")
    Path(path).write_text("user,item,timestamp\n" + "\n".join(lines) + "\n")


@pytest.fixture(scope="module", params=["modern-both", "bert4rec"])
def home(request, tmp_path_factory):
    """A folder with a log of eight days and, in run/, a model of it."""
    home = tmp_path_factory.mktemp("home")
    write_log(8, home / "log.csv")
    options = ["--recipe", request.param, "--seed", "3", "--set", "epochs=2", "max_length=20"]
    main(["train", "--preset", "tiny", "--ratings", str(home / "log.csv"), "--out", str(home / "run"), *options])
    return home


@pytest.fixture
def at_home(home, tmp_path, monkeypatch):
    shutil.copytree(home, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")


def test_a_model_goes_on_with_the_new_rows_of_its_log(at_home, capsys):
    before = load("run")
    write_log(14, without=3)
    main(["train", "run", "--continue", *FURTHER])
    said = capsys.readouterr().out
    # six days more of thirty readers, less the fourteen rows of book 3 in ten days, of which eight had twelve
    assert "since the training of run: +166 rows; items: 5 new, 1 gone\n" in said
    assert "\nrows are gone: what is validated and tested on now may have been trained on then; do not" in said
    assert "The finished model in " in said and "run/previous-1.\n" in said
    after = load("run")
    assert after.is_finished and after.seed == 3 and len(after.history) == 2
    assert after.settings == continued_settings(before.settings).change(epochs=2)
    assert [*map(int, after.vocabulary.items)] == [book for book in range(BOOKS + 5) if book != 3]
    assert after.load_items().ratings.sum() == 30 * 14 - 14
    assert load("run/previous-1").fingerprint == before.fingerprint
    assert not Path("run", UNFINISHED).exists()
    main(["evaluate", "run", "--protocols", "full", "--with-linear"])
    assert "of each of 30 users" in capsys.readouterr().out

    written = Path("run", MODEL).read_bytes()
    main(["train", "run", "--continue"])
    unchanged = "nothing that is trained on has changed in the log of run: its model stays as it is\n"
    assert unchanged in capsys.readouterr().out
    with open("log.csv", "a") as log:
        log.write("99,5,99\n")  # too short a history to train on
    main(["train", "run", "--continue"])
    assert unchanged in capsys.readouterr().out
    assert Path("run", MODEL).read_bytes() == written and not Path("run/previous-2").exists()


def test_a_log_that_has_moved_can_be_told(at_home):
    write_log(14, "other.csv")
    Path("log.csv").unlink()
    main(["train", "run", "--continue", "--ratings", "other.csv", *FURTHER])
    data = load("run").settings.data
    assert Path(data.ratings_file).name == "other.csv" and data.max_users is None
    assert len(load("run").vocabulary) == BOOKS + 5


def interrupt(trainer):
    raise KeyboardInterrupt


@pytest.mark.parametrize("when", ["after an epoch", "when the old model was set aside", "when the state was written"])
def test_the_same_command_goes_on_after_an_interruption(when, at_home):
    write_log(14)
    shutil.copytree("run", "other")
    main(["train", "other", "--continue", *FURTHER])
    before = load("run")
    settings = continued_settings(before.settings).change(epochs=2)
    if when == "when the old model was set aside":
        set_aside(Path("run"))
    else:
        dataset = load_dataset(settings.data)
        model = continued_model(before, dataset, 3)
        with pytest.raises(KeyboardInterrupt):
            fit(model, dataset, settings, seed=3, folder="run", continued=True, on_epoch=interrupt)
        assert not load("run").is_finished
    if when == "when the state was written":
        Path("run", MODEL).unlink()
    main(["train", "run", "--continue", *FURTHER])
    resumed, straight = load("run"), load("other")
    for one, other in zip(resumed.model.state_dict().values(), straight.model.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other)
    assert resumed.linear_weight == straight.linear_weight and len(resumed.history) == 2
    assert load("run/previous-1").fingerprint == before.fingerprint and not Path("run/previous-2").exists()


@pytest.mark.parametrize("when", ["after an epoch", "when the state was written", "when it was undone"])
def test_an_interrupted_continuation_starts_over_when_the_log_has_grown(when, at_home, capsys):
    before = load("run")
    shutil.copytree("run", "other")
    write_log(13)
    settings = continued_settings(before.settings).change(epochs=2)
    dataset = load_dataset(settings.data)
    with pytest.raises(KeyboardInterrupt):
        model = continued_model(before, dataset, 3)
        fit(model, dataset, settings, seed=3, folder="run", continued=True, on_epoch=interrupt)
    assert not load("run").is_finished
    if when == "when the state was written":
        Path("run", MODEL).unlink()
    elif when == "when it was undone":
        put_back(Path("run"))
    write_log(14)
    capsys.readouterr()
    for name in ("run", "other"):
        main(["train", name, "--continue", *FURTHER])
    said = capsys.readouterr().out
    assert said.count("/run: it starts over\n") == said.count("the log has changed since the interrupted training") == 1
    assert said.count("since the training of run: ") == 1 and "rows are gone" not in said
    resumed, straight = load("run"), load("other")
    for one, other in zip(resumed.model.state_dict().values(), straight.model.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other)
    assert resumed.is_finished and len(resumed.history) == 2
    assert load("run/previous-1").fingerprint == before.fingerprint and not Path("run/previous-2").exists()


@pytest.mark.parametrize("mistake", [["--ratings", "books.csv"], ["--set", "epochs=3"]])
def test_an_interrupted_continuation_outlives_a_mistake(mistake, at_home):
    before = load("run")
    write_log(14)
    write_log(14, "books.csv", ids="book {}".format)
    settings = continued_settings(before.settings).change(epochs=2)
    with pytest.raises(KeyboardInterrupt):
        dataset = load_dataset(settings.data)
        model = continued_model(before, dataset, 3)
        fit(model, dataset, settings, seed=3, folder="run", continued=True, on_epoch=interrupt)
    kept = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    with pytest.raises(SystemExit, match=r"the model knows no item of this log|unfinished run of another kind"):
        main(["train", "run", "--continue", *mistake])
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == kept


def test_going_on_needs_the_model_and_rows_of_its_kind(at_home, tmp_path, dataset):
    def refused(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(["train", *map(str, arguments)])
        return stopped.value.code

    assert "DIR and --continue belong together" in refused("run")
    assert "DIR and --continue belong together" in refused("--continue")
    assert "--recipe is of a new model" in refused("run", "--continue", "--recipe", "modern-next")
    assert "--out is of a new model" in refused("run", "--continue", "--out", "other")
    assert "holds no trained model" in refused("nowhere", "--continue")
    write_log(9, ids="book {}".format)
    assert "the model knows no item of this log" in refused("run", "--continue")
    write_log(9)
    Path("log.csv").unlink()  # said before it is read
    message = refused("run", "--continue", "--set", "width=64", "epochs=2")
    assert message.startswith("error: width cannot change when a model goes on; leave it out, or train a new")
    for change in ("time_split=0.5", "repeats=keep", "min_item_ratings=9"):  # what is tested was trained on then
        message = refused("run", "--continue", "--set", change)
        assert message.startswith(f"error: {change.partition('=')[0]} cannot change when a model goes on")
    assert [path.name for path in Path("run").glob("[!.]*.safetensors")] == [MODEL]

    tiny = get_preset("tiny").change(epochs=1)
    fit(new_model(dataset, tiny), dataset, tiny, folder=tmp_path / "tiny", verbose=False)
    assert "a release has neither repeats nor new rows" in refused(tmp_path / "tiny", "--continue")


def test_an_unfinished_new_run_is_not_gone_on_from(at_home):
    settings = load("run").settings.change(epochs=3)
    dataset = load_dataset(settings.data)
    with pytest.raises(KeyboardInterrupt):
        fit(new_model(dataset, settings, 3), dataset, settings, seed=3, folder="run", on_epoch=interrupt)
    with pytest.raises(SystemExit, match=r"unfinished run of another kind .*initial weights is .*, not those"):
        main(["train", "run", "--continue", *FURTHER])


def test_a_model_that_goes_on_scores_as_before(at_home):
    checkpoint = load("run")
    dataset = checkpoint.load_dataset()
    histories = dataset.split.test.histories
    model = continued_model(checkpoint, dataset, seed=1)
    np.testing.assert_array_equal(model.score(histories), checkpoint.model.score(histories))


def test_ids_that_have_become_texts_are_still_known(at_home, capsys):
    """One new id that is no number makes texts of all."""
    write_log(14, ids=lambda book: "new" if book == BOOKS else book)
    main(["train", "run", "--continue", *FURTHER])
    said = capsys.readouterr().out
    assert " rows; items: 5 new, 0 gone\n" in said and "rows are gone" not in said
    vocabulary = load("run").vocabulary
    assert "new" in vocabulary and "7" in vocabulary


@pytest.mark.parametrize("cut", ["time", "users"])
def test_the_measurement_tells_no_target_beforehand(cut, dataset, monkeypatch):
    """What the older model of the benchmark was trained on and chosen by, user by user."""
    monkeypatch.syspath_prepend(PROJECT / "benchmarks")
    monkeypatch.delitem(sys.modules, "continue_training", raising=False)
    from continue_training import is_of_yesterday, part_of

    is_kept = is_of_yesterday(dataset, cut)
    yesterday = part_of(dataset, is_kept)
    assert 0.85 < is_kept.mean() < 0.95 and len(yesterday.vocabulary) < len(dataset.vocabulary)
    asked = dict(zip(dataset.sequences.users.tolist(), dataset.split.test.targets, strict=True))
    whole = dict(zip(dataset.sequences.users.tolist(), dataset.sequences, strict=True))
    cutoff = dataset.log.ratings.timestamp.quantile(0.9)
    times = dataset.log.ratings.set_index(["user", "item"]).timestamp
    split = yesterday.split
    for row, user in enumerate(split.train.users.tolist()):
        learnt = yesterday.vocabulary.item_ids(np.append(split.train[row], split.validation.targets[row]))
        items = dataset.vocabulary.item_ids(whole[user])
        assert dataset.vocabulary.item_ids(asked[user]) not in learnt
        assert [item for item in items if item in learnt] == learnt.tolist()  # in today's order
        last = yesterday.vocabulary.item_ids(yesterday.sequences[row])[-1]
        if cut == "time":
            assert times[user, last] < cutoff
        else:
            assert items.tolist().index(last) < 0.9 * len(items)
