import json
import logging
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors
import torch

from bertrec_utils.__main__ import main
from bertrec_utils.common import replace_file
from bertrec_utils.data.dataset import Dataset, load_dataset
from bertrec_utils.data.sequences import Vocabulary
from bertrec_utils.evaluation.baselines import linear_baseline
from bertrec_utils.evaluation.mixture import fit_mixture
from bertrec_utils.settings import GROUPS, get_preset
from bertrec_utils.training import checkpoints
from bertrec_utils.training.checkpoints import (
    ITEMS,
    MODEL,
    Checkpoint,
    load,
    load_trained,
    save,
    set_aside,
)
from bertrec_utils.training.formats import FORMAT, settings_of_format_1
from bertrec_utils.training.trainer import fit, new_model

TINY = get_preset("tiny").change(epochs=1)
CPU = torch.device("cpu")
OLD = Path(__file__).with_name("format-1")


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    model = new_model(dataset, TINY, seed=3, device=CPU)
    history = fit(model, dataset, TINY, seed=3, folder=folder)
    return model, history, folder


@pytest.fixture
def saved(trained, tmp_path):
    """A model, the history of its training, and a folder with both that a test may spoil."""
    model, history, folder = trained
    return model, history, shutil.copytree(folder, tmp_path / "run")


def description_of(folder):
    with safetensors.safe_open(folder / MODEL, "numpy") as file:
        return json.loads(file.metadata()["bertrec"])


def test_save_and_load_give_equal_scores(dataset, saved):
    model, history, folder = saved
    assert sorted(path.name for path in folder.glob("[!.]*")) == [ITEMS, MODEL]
    checkpoint = load(folder, "cpu")
    histories = dataset.split.test.histories.rows(np.arange(20))
    np.testing.assert_array_equal(model.score(histories), checkpoint.model.score(histories))
    assert (checkpoint.settings, checkpoint.model.settings, checkpoint.seed) == (TINY, TINY.model, 3)
    assert checkpoint.describe() == "modern-both (start: counts, seed 3)" and checkpoint.folder == folder
    np.testing.assert_allclose(checkpoint.history, history)
    checkpoint.check(dataset)
    assert checkpoint.load_dataset().fingerprint == dataset.fingerprint


def test_items_lie_beside_the_model(dataset, saved):
    folder = saved[2]
    checkpoint = load(folder)
    pd.testing.assert_frame_equal(checkpoint.load_items(), dataset.items, check_dtype=False)
    (folder / ITEMS).write_text("item,title\n1,Toy Story\n")
    with pytest.raises(ValueError, match=r"items\.csv is damaged .*; delete it, and the titles are read from the log"):
        checkpoint.load_items()
    (folder / ITEMS).unlink()
    pd.testing.assert_frame_equal(checkpoint.load_items(), dataset.items)


def test_the_mixture_with_the_baseline_is_what_validation_chose(dataset, saved):
    model, history, folder = saved
    checkpoint = load(folder)
    baseline = linear_baseline(dataset.split.train, model.item_count)
    chosen = fit_mixture(model, baseline, dataset.split.validation)
    histories = dataset.split.test.histories.rows(np.arange(20))
    assert checkpoint.linear_weight == chosen.weight
    np.testing.assert_array_equal(checkpoint.with_linear(dataset).score(histories), chosen.score(histories))
    unfinished = Checkpoint(model, checkpoint.vocabulary, TINY, 3, history, checkpoint.fingerprint)
    with pytest.raises(ValueError, match="run is not finished"):
        unfinished.with_linear(dataset)


def test_a_model_of_an_unfinished_run_says_so(dataset, tmp_path, caplog):
    def interrupt(trainer):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(new_model(dataset, TINY), dataset, TINY.change(epochs=4), folder=tmp_path, on_epoch=interrupt)
    checkpoint = load(tmp_path)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "is not finished: this is its best epoch of 1 so far" in caplog.text and tmp_path.name in caplog.text
    assert not checkpoint.is_finished and "UNFINISHED: after epoch 1" in checkpoint.describe()


def test_a_model_of_a_finished_run_is_loaded_in_silence(saved, caplog, capsys):
    assert load(saved[2]).is_finished
    assert not caplog.records and capsys.readouterr() == ("", "")


def test_any_changed_byte_is_noticed(saved):
    path = saved[2] / MODEL
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    random = np.random.default_rng(0)
    positions = [*range(8), *random.integers(8, header, 100), *random.integers(header, len(content), 100)]
    for position in positions:
        changed = bytearray(content)
        changed[position] ^= 1 << random.integers(8)
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"model\.safetensors is damaged or of another version.*train it again"):
            load(path.parent)
    path.write_bytes(content)
    assert load(path.parent).seed == 3


def test_ids_may_be_like_the_place_of_the_checksum(saved):
    """Ethereum's ids, for one; the order of the parts of the file is another each time."""
    checkpoint = load(saved[2])
    ids = np.array([f"0x{number:064x}" for number in range(len(checkpoint.vocabulary))])
    for _ in range(8):
        save(saved[2], replace(checkpoint, vocabulary=Vocabulary(ids)))
        assert load(saved[2]).vocabulary.items.tolist() == ids.tolist()


@pytest.mark.parametrize("content", [b"", b"{}", b"\0" * 100])
def test_what_is_no_model_is_an_error(tmp_path, content):
    (tmp_path / MODEL).write_bytes(content)
    with pytest.raises(ValueError, match="train it again"):
        load(tmp_path)


def test_truncated_model_is_an_error(saved):
    path = saved[2] / MODEL
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="train it again"):
        load(path.parent)


def test_missing_model_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="run notebook 03"):
        load(tmp_path / "nowhere")


def test_files_of_format_1_still_load():
    """As the code of that time scored them (format-1/README.md)."""
    expected = json.loads((OLD / "scores.json").read_text())["ours"]
    assert "format" not in description_of(OLD / "ours")
    checkpoint = load(OLD / "ours", "cpu")
    dataset = checkpoint.load_dataset()
    scores = checkpoint.model.score(dataset.split.test.histories.rows(np.arange(3)))
    best = scores.argsort(1)[:, ::-1][:, :5]
    assert (best + 1).tolist() == expected["tokens"]
    np.testing.assert_allclose(np.take_along_axis(scores, best, 1), expected["scores"], atol=1e-4)
    assert checkpoint.linear_weight == expected["linear weight"] and checkpoint.seed == 1
    changes = {"max_users": 20, "width": 8, "layers": 1, "epochs": 2, "precision": "float32"}
    assert checkpoint.settings == get_preset("tiny").change(**changes)


def test_a_bert4rec_of_an_older_format_is_refused_with_advice():
    with pytest.raises(ValueError, match=r"of another version \(the network of bert4rec has changed since\); train it"):
        load(OLD / "bert4rec-paper", "cpu")


def test_a_file_of_format_1_that_is_saved_again_is_of_the_newest(tmp_path):
    old = load(OLD / "ours", "cpu")
    save(tmp_path, old)
    assert description_of(tmp_path)["format"] == FORMAT
    new = load(tmp_path, "cpu")
    histories = old.load_dataset().split.test.histories
    np.testing.assert_array_equal(new.model.score(histories), old.model.score(histories))
    assert new.settings == old.settings and new.linear_weight == old.linear_weight


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"history_length": 77}, {"max_length": 77}),
        ({"near": 3}, {"conv_size": 3}),
        ({"next_only": 0.6}, {"p_causal": 0.6}),
        ({"cloze_only": 0.4}, {"p_cloze": 0.4}),
        ({"last_only": 0.2}, {"p_mask_last": 0.2}),
        ({"warmup_share": 0.5}, {"warmup_fraction": 0.5}),
        ({"warm_start": False}, {"start": "random"}),
        (
            {"paper": True, "next_only": 0.0, "cloze_only": 1.0},
            {"network": "bert4rec", "p_causal": 0.0, "p_cloze": 1.0},
        ),
        ({"ratings_file": "/log.csv", "negatives": 7}, {"ratings_file": "/log.csv", "negatives": 7}),
    ],
)
def test_renamed_settings_are_migrated(old, new):
    before = description_of(OLD / "ours")["preset"]
    changed = settings_of_format_1(before | old)
    flat = {name: value for group in GROUPS for name, value in changed[group].items()}
    expected = {name: value for group in GROUPS for name, value in settings_of_format_1(before)[group].items()} | new
    assert flat == expected and set(old) <= set(before)


def save_as_of_ml_latest_2k(folder, **changes):
    """The model there, as it was saved when the first users of ml-5k were a release of their own."""
    checkpoint = load(folder)
    save(folder, replace(checkpoint, settings=checkpoint.settings.change(release="ml-latest-2k", **changes)))
    assert description_of(folder)["settings"]["data"]["release"] == "ml-latest-2k"


@pytest.mark.parametrize(("users", "of_ml_5k"), [(None, 2_148), (60, 60), (2_148, 2_148), (5_000, 2_148)])
def test_a_model_of_ml_latest_2k_is_one_of_the_first_users_of_ml_5k(users, of_ml_5k, saved):
    save_as_of_ml_latest_2k(saved[2], max_users=users)
    data = load(saved[2]).settings.data
    assert (data.release, data.max_users) == ("ml-5k", of_ml_5k)


def test_a_model_of_ml_latest_2k_finds_its_data(saved, dataset):
    save_as_of_ml_latest_2k(saved[2])
    assert load(saved[2]).load_dataset().fingerprint == dataset.fingerprint


def test_a_model_of_an_own_log_keeps_all_its_users(own_run):
    save_as_of_ml_latest_2k(own_run / "runs" / "shelf")
    checkpoint = load(own_run / "runs" / "shelf")
    assert checkpoint.settings.data.max_users is None and len(checkpoint.load_dataset().sequences) == 20


def test_a_file_of_a_newer_format_is_refused_with_advice(saved, monkeypatch):
    with monkeypatch.context() as later:
        later.setattr(checkpoints, "FORMAT", FORMAT + 1)
        save(saved[2], load(saved[2]))
    with pytest.raises(
        ValueError, match=rf"safetensors is of format {FORMAT + 1}, written by a newer version .*; update yours$"
    ):
        load(saved[2])


@pytest.fixture
def own_run(tmp_path):
    """A folder with a log of its owner's and, in runs/shelf, a model trained on it."""
    home = tmp_path / "home"
    home.mkdir()
    lines = [f"{reader},{(reader * 3 + day) % 20},{day}" for reader in range(20) for day in range(8)]
    (home / "log.csv").write_text("user,item,timestamp\n" + "\n".join(lines) + "\n")
    (home / "titles.csv").write_text("item,title\n" + "".join(f"{number},Volume {number}\n" for number in range(20)))
    own = TINY.change(max_users=None, ratings_file=str(home / "log.csv"), items_file=str(home / "titles.csv"))
    dataset = load_dataset(own.data)
    fit(new_model(dataset, own), dataset, own, folder=home / "runs" / "shelf")
    return home


def test_a_model_of_an_own_log_names_no_absolute_path(own_run):
    folder = own_run / "runs" / "shelf"
    data = description_of(folder)["settings"]["data"]
    assert data["ratings_file"] == "../../log.csv" and data["items_file"] == "../../titles.csv"
    for path in folder.iterdir():
        assert str(own_run).encode() not in path.read_bytes()


def test_a_model_moves_with_its_log(own_run, tmp_path, monkeypatch):
    elsewhere = (own_run).rename(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    for folder in (elsewhere / "runs" / "shelf", Path("elsewhere", "runs", "shelf")):
        checkpoint = load(folder)
        dataset = checkpoint.load_dataset()
        assert dataset.items.title.tolist() == checkpoint.load_items().title.tolist()
        assert checkpoint.settings.data.ratings_file == str(elsewhere / "log.csv")
        save(tmp_path / "other", checkpoint)
        assert load(tmp_path / "other").load_dataset().fingerprint == dataset.fingerprint


def test_a_model_that_was_set_aside_still_finds_its_log(own_run):
    folder = own_run / "runs" / "shelf"
    target = set_aside(folder)
    assert sorted(path.name for path in target.iterdir()) == [ITEMS, MODEL] and not (folder / MODEL).exists()
    checkpoint = load(target)
    assert len(checkpoint.load_dataset().sequences) == 20 and len(checkpoint.load_items()) == 20
    save(target, checkpoint)
    assert load(target).settings == checkpoint.settings


def test_a_model_answers_without_its_log(own_run):
    (own_run / "log.csv").unlink()
    checkpoint = load(own_run / "runs" / "shelf")
    items = checkpoint.load_items()
    assert items.title.tolist() == [f"Volume {number}" for number in range(20)] and (items.ratings == 8).all()
    with pytest.raises(FileNotFoundError, match=r"there is no file .*log\.csv"):
        checkpoint.load_dataset()


def test_a_run_of_an_own_log_is_not_taken_for_a_preset(own_run, tmp_path, monkeypatch, capsys):
    project = tmp_path / "project"
    monkeypatch.setattr(checkpoints, "PROJECT", project)
    shutil.copytree(own_run / "runs" / "shelf", project / "runs" / "tiny")
    with pytest.raises(ValueError, match=r"runs/tiny was trained on a log of your own, not on ml-5k"):
        load_trained(get_preset("tiny"))
    assert not capsys.readouterr().out


@pytest.mark.parametrize(("name", "value"), [("max_users", 60), ("width", 16)])
def test_a_run_of_other_settings_is_not_taken_for_a_preset(name, value, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoints, "PROJECT", tmp_path)
    main(
        ["train", "--preset", "tiny", "--out", str(tmp_path / "runs" / "tiny"), "--set", f"{name}={value}", "epochs=1"]
    )
    preset = get_preset("tiny")
    capsys.readouterr()
    with pytest.raises(ValueError, match=rf"runs/tiny was trained with {name}={value}, not {preset.flat()[name]}; "):
        load_trained(preset)
    assert not capsys.readouterr().out
    assert load_trained(preset.change(**{name: value})).settings.flat()[name] == value


def test_other_data_is_refused(dataset, saved):
    checkpoint = load(saved[2])
    other_items = Dataset(Vocabulary(dataset.vocabulary.items + 1), dataset.sequences)
    with pytest.raises(ValueError, match="trained on other items than the data at hand"):
        checkpoint.check(other_items)
    swapped = dataset.sequences.tokens.copy()
    swapped[:2] = swapped[1::-1]
    with pytest.raises(ValueError, match="trained on other sequences"):
        checkpoint.check(Dataset(dataset.vocabulary, replace(dataset.sequences, tokens=swapped)))
    with pytest.raises(ValueError, match="train again on this"):
        checkpoint.check(load_dataset(TINY.change(max_users=60).data))


def test_saving_over_a_checkpoint_is_all_or_nothing(saved, monkeypatch):
    path = saved[2] / MODEL
    before = path.read_bytes()
    checkpoint = load(path.parent)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(path.parent, replace(checkpoint, seed=4))
    assert path.read_bytes() == before
    assert sorted(file.name for file in path.parent.glob("[!.]*")) == [ITEMS, MODEL]


def test_every_setting_is_written(saved):
    written = description_of(saved[2])["settings"]
    assert written == json.loads(json.dumps(asdict(TINY)))


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(partial):
        partial.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_file(path, fail)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("file", "old")]


def test_file_is_on_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    done = []
    fsync, rename = os.fsync, os.replace

    def record_flush(descriptor):
        done.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def record_rename(source, target):
        done.append("renamed")
        rename(source, target)

    if not os.path.exists("/proc/self/fd"):
        pytest.skip("no /proc to tell which file a descriptor is")
    monkeypatch.setattr(os, "fsync", record_flush)
    monkeypatch.setattr(os, "replace", record_rename)
    replace_file(tmp_path / "file", lambda partial: partial.write_text("new"))
    assert done[0].startswith("file.") and done[0].endswith(".partial")
    assert done[1:] == ["renamed", tmp_path.name]


def test_a_model_is_in_evaluation_mode_after_it_is_trained_or_loaded(trained):
    """Else two threads that score at once may turn dropout on for each other."""
    model, _, folder = trained
    assert not model.training and not load(folder).model.training


def test_ids_that_are_texts_are_loaded_as_texts_of_their_own_length(dataset, tmp_path):
    ids = np.array(sorted(f"item {number}" + "!" * 500 * (number == 7) for number in range(len(dataset.vocabulary))))
    renamed = Dataset(Vocabulary(ids.astype(object)), dataset.sequences)
    fit(new_model(renamed, TINY, device=CPU), renamed, TINY, folder=tmp_path)
    found = load(tmp_path).vocabulary.items
    assert found.dtype == object and found.tolist() == ids.tolist()


def test_a_log_in_the_home_folder_is_found_again(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    rows = [f"{user},{(user * item) % 7},{item}" for user in range(1, 30) for item in range(1, 6)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,timestamp", *rows]))
    settings = TINY.change(ratings_file="~/log.csv", max_users=None)
    data = load_dataset(settings.data)
    settings = settings.change(repeats=data.repeats)
    fit(new_model(data, settings, device=CPU), data, settings, folder=tmp_path / "model")
    assert len(load(tmp_path / "model").load_dataset().vocabulary) == len(data.vocabulary)


def test_the_linear_baseline_of_other_data_is_refused(trained, dataset):
    _, _, folder = trained
    half = Dataset(dataset.vocabulary, dataset.sequences.rows(np.arange(60)))
    with pytest.raises(ValueError, match="the model was trained on other"):
        load(folder).with_linear(half)
