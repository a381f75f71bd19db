"""The weights that come with the project do what their recorded runs say."""

import numpy as np
import pytest

from bertrec_utils.common import PROJECT
from bertrec_utils.evaluation.ranking import metrics, target_ranks
from bertrec_utils.settings import get_preset
from bertrec_utils.training import checkpoints
from bertrec_utils.training.checkpoints import load, load_trained


def assert_the_recorded_ranks(folder, run):
    """Of every test user, under every protocol, of the network alone and mixed with the linear baseline."""
    checkpoint = load(PROJECT / "pretrained" / folder)
    dataset = checkpoint.load_dataset()
    scorers = {"test": checkpoint.model, "test-with-linear": checkpoint.with_linear(dataset)}
    with np.load(PROJECT / "results" / "ranks" / f"{run}.npz") as recorded:
        for test, scorer in scorers.items():
            for protocol, ranks in target_ranks(scorer, dataset.split.test).items():
                differs = ranks != recorded[f"{test}/{protocol}"] / 2
                assert differs.mean() < 0.002  # none here; another machine may round two nearly equal scores otherwise


def test_the_shipped_weights_give_the_recorded_ranks():
    assert_the_recorded_ranks("small", "small-seed0")


@pytest.mark.parametrize("folder", ["medium", "medium-modern-cloze", "medium-bert4rec"])
def test_the_shipped_weights_in_half_precision_give_nearly_the_recorded_ranks(folder):
    checkpoint = load(PROJECT / "pretrained" / folder)
    test = checkpoint.load_dataset().split.test
    ranks = target_ranks(checkpoint.model, test, ["full"])["full"]
    with np.load(PROJECT / "results" / "ranks" / f"{folder}-seed0.npz") as recorded:
        of_run = recorded["test/full"] / 2
    assert (np.abs(ranks - of_run) / of_run).mean() < 1.5e-3
    assert abs(metrics(ranks, [10])["ndcg@10"] - metrics(of_run, [10])["ndcg@10"]) < 5e-4


def test_the_shipped_ml_1m_weights_give_the_recorded_ranks(ml_1m_folder):
    assert_the_recorded_ranks("ml-1m", "ml-1m-seed0")


@pytest.mark.parametrize(
    ("preset", "recipe", "folder"),
    [
        ("small", "modern-both", "small"),
        ("medium", "modern-both", "medium"),
        ("medium", "modern-cloze", "medium-modern-cloze"),
        ("medium", "bert4rec", "medium-bert4rec"),
        ("ml-1m", "modern-both", "ml-1m"),
    ],
)
def test_the_shipped_weights_are_found_and_are_of_their_settings(preset, recipe, folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "pretrained").symlink_to(PROJECT / "pretrained")  # without a run of the reader's own
    monkeypatch.setattr(checkpoints, "PROJECT", tmp_path)
    settings = get_preset(preset, recipe)
    checkpoint = load_trained(settings)
    assert folder in capsys.readouterr().out
    assert checkpoint.settings == settings and checkpoint.is_finished


def test_your_own_run_comes_before_the_shipped_weights(tmp_path, monkeypatch, capsys):
    settings = get_preset("small")
    shipped = load(PROJECT / "pretrained" / "small")
    monkeypatch.setattr(checkpoints, "PROJECT", tmp_path)
    checkpoints.save(tmp_path / "pretrained" / "small", shipped)
    load_trained(settings)
    assert "weights that come with the project" in capsys.readouterr().out
    checkpoints.save(tmp_path / "runs" / "small", shipped)
    load_trained(settings)
    assert "your own run" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="notebook 03"):
        load_trained(get_preset("tiny"))  # its vocabulary is another one
