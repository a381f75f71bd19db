import os
from dataclasses import replace

import numpy as np
import pytest

from bertrec_utils.training.checkpoints import MODEL, Checkpoint, load, save
from bertrec_utils.data.dataset import Dataset, load_dataset
from bertrec_utils.common import replace_file
from bertrec_utils.evaluation.mixture import linear_baseline, fit_mixture
from bertrec_utils.settings import get_preset
from bertrec_utils.data.sequences import Vocabulary
from bertrec_utils.training.trainer import fit, new_model

TINY = replace(get_preset("tiny"), epochs=1)


@pytest.fixture
def saved(dataset, tmp_path):
    model = new_model(dataset, TINY, seed=3)
    history = fit(model, dataset, seed=3, folder=tmp_path)
    return model, history, tmp_path


def test_save_and_load_give_equal_scores(dataset, saved):
    model, history, folder = saved
    assert [path.name for path in folder.glob("[!.]*")] == [MODEL]
    checkpoint = load(folder)
    histories = dataset.split.test.histories.rows(np.arange(20))
    np.testing.assert_array_equal(model.score(histories), checkpoint.model.score(histories))
    assert (checkpoint.model.preset, checkpoint.seed) == (TINY, 3)
    np.testing.assert_allclose(checkpoint.history, history)
    checkpoint.check(dataset)
    assert checkpoint.load_dataset().fingerprint == dataset.fingerprint


def test_the_mixture_with_counting_is_what_validation_chose(dataset, saved):
    model, history, folder = saved
    checkpoint = load(folder)
    baseline = linear_baseline(dataset.split.train, model.item_count)
    chosen = fit_mixture(model, baseline, dataset.split.validation)
    histories = dataset.split.test.histories.rows(np.arange(20))
    assert checkpoint.linear_weight == chosen.weight
    np.testing.assert_array_equal(checkpoint.with_linear(dataset).score(histories), chosen.score(histories))
    unfinished = Checkpoint(model, checkpoint.vocabulary, 3, history, checkpoint.fingerprint)
    with pytest.raises(ValueError, match="run is not finished"):
        unfinished.with_linear(dataset)


def test_any_changed_byte_is_noticed(saved):
    path = saved[2] / MODEL
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    random = np.random.default_rng(0)
    places = [*range(8), *random.integers(8, header, 100), *random.integers(header, len(content), 100)]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << random.integers(8)
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"model\.safetensors is damaged or of another version.*train it again"):
            load(path.parent)
    path.write_bytes(content)
    assert load(path.parent).seed == 3


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
        checkpoint.check(load_dataset(replace(TINY, max_users=60)))


def test_saving_over_a_checkpoint_is_all_or_nothing(saved, monkeypatch):
    path = saved[2] / MODEL
    before = path.read_bytes()
    checkpoint = load(path.parent)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(path.parent, Checkpoint(checkpoint.model, checkpoint.vocabulary, 4, checkpoint.history, {}))
    assert path.read_bytes() == before and [file.name for file in path.parent.glob("[!.]*")] == [MODEL]


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
