"""The weights that come with the project do what their recorded runs say."""

import json

import pytest

from bertrec_utils import checkpoints
from bertrec_utils.training.checkpoints import load, load_trained
from bertrec_utils.evaluation.ranking import evaluate
from bertrec_utils.common import PROJECT
from bertrec_utils.settings import get_preset


def recorded(name):
    return json.loads((PROJECT / "results" / f"{name}.json").read_text())


@pytest.mark.parametrize("folder", ["ml-latest-2k", "ml-latest-2k-bert4rec-paper"])
def test_the_shipped_weights_reproduce_their_metrics(folder):
    name = {"ml-latest-2k": "small-seed0", "ml-latest-2k-bert4rec-paper": "small-bert4rec-paper-seed0"}[folder]
    checkpoint = load(PROJECT / "pretrained" / folder)
    found = evaluate(checkpoint.model, checkpoint.load_dataset().split.test, ["full"])["full"]
    assert found == pytest.approx(recorded(name)["test"]["full"], abs=5e-4)  # rounding differs between machines


def test_the_shipped_ml_1m_weights(ml_1m_folder):
    checkpoint = load(PROJECT / "pretrained" / "ml-1m")
    found = evaluate(checkpoint.model, checkpoint.load_dataset().split.test, ["full"])["full"]
    assert found == pytest.approx(recorded("ml-1m-seed0")["test"]["full"], abs=5e-4)


def test_your_own_run_comes_before_the_shipped_weights(tmp_path, monkeypatch, capsys):
    preset = get_preset("small")
    shipped = load(PROJECT / "pretrained" / "ml-latest-2k")
    monkeypatch.setattr(checkpoints, "PROJECT", tmp_path)
    checkpoints.save(tmp_path / "pretrained" / "ml-latest-2k", shipped)
    load_trained(preset)
    assert "weights that come with the project" in capsys.readouterr().out
    checkpoints.save(tmp_path / "runs" / "small", shipped)
    load_trained(preset)
    assert "your own run" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="notebook 03"):
        load_trained(get_preset("tiny"))  # its vocabulary is another one
