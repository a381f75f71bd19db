"""`export`: vectors whose products are the scores, and the network as ONNX."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_main import error_of, run

from bertrec_utils.__main__ import main
from bertrec_utils.commands.export import NextItemScores
from bertrec_utils.common import PROJECT
from bertrec_utils.data.dataset import load_dataset
from bertrec_utils.data.sequences import Sequences
from bertrec_utils.settings import get_preset
from bertrec_utils.training.checkpoints import Checkpoint, load, save
from bertrec_utils.training.trainer import new_model

ITEMS, LONGEST = 40, 12
needs_onnx = pytest.mark.skipif(torch.__version__ < "2.13", reason="PyTorch before 2.13 does not export every length")


def made_up_model(home, recipe="modern-both", **settings):
    """home/model: a network of random weights, and its log of 30 readers with 4 to 33 items each, all ids texts."""
    lines = [
        f"reader {reader},{(reader * 7 + day * (1 + reader % 3)) % ITEMS:03},{day}"
        for reader in range(30)
        for day in range(4 + reader)
    ]
    (home / "log.csv").write_text("user,item,timestamp\n" + "\n".join(lines) + "\n")
    changes = {"ratings_file": str(home / "log.csv"), "max_users": None, "min_item_ratings": 1}
    settings = get_preset("tiny", recipe, "random").change(**changes | {"max_length": LONGEST, "width": 16} | settings)
    dataset = load_dataset(settings.data)
    model = new_model(dataset, settings, device=torch.device("cpu"))
    torch.manual_seed(0)
    for parameter in model.parameters():  # away from the tiny initial weights, so that mistakes show
        torch.nn.init.normal_(parameter, std=0.3)
    save(home / "model", Checkpoint(model, dataset.vocabulary, settings, 0, pd.DataFrame(), dataset.fingerprint, 0.5))
    return load(home / "model", "cpu")


@pytest.mark.parametrize("recipe", ["bert4rec", "modern-both", "modern-next"])
def test_products_of_vectors_are_the_scores(recipe, tmp_path, monkeypatch, capsys):
    """Of all readers, also those whose history the network does not read to its beginning; then after a new row."""
    checkpoint = made_up_model(tmp_path, recipe)
    monkeypatch.chdir(tmp_path)
    main(["export", "model", "--items", "items.npz", "--users", "users.npz"])
    items, users = np.load("items.npz"), np.load("users.npz")  # which reads nothing that is pickled
    sequences = checkpoint.load_dataset().sequences
    assert items["item"].tolist() == checkpoint.vocabulary.items.tolist() == [f"{item:03}" for item in range(ITEMS)]
    assert users["user"].tolist() == sequences.users.tolist() and "reader 7" in users["user"]
    assert users["vector"].dtype == items["vector"].dtype == items["bias"].dtype == np.float32
    scores = users["vector"] @ items["vector"].T + items["bias"]
    np.testing.assert_allclose(scores, checkpoint.model.score(sequences), rtol=0, atol=1e-5)
    told = (
        "items.npz: 40 items, vectors of 16 numbers and a bias\nusers.npz: 30 users, a vector after the history of each"
    )
    assert capsys.readouterr().out == f"{told}\n"

    with open("log.csv", "a") as log:
        log.write("reader 7,000,99\nreader 7,new,100\n")
    Path("log.csv").rename("moved.csv")
    main(["export", "model", "--users", "users.npz", "--ratings", "moved.csv"])
    row = users["user"].tolist().index("reader 7")
    grown = np.append(sequences[row], checkpoint.vocabulary.tokens(["000"]))
    [expected] = checkpoint.model.score(Sequences(grown, np.array([0, len(grown)]), np.arange(1)))
    now = np.load("users.npz")["vector"] @ items["vector"].T + items["bias"]
    np.testing.assert_allclose(now[row], expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.delete(now, row, 0), np.delete(scores, row, 0), rtol=0, atol=1e-5)
    assert np.abs(now[row] - scores[row]).max() > 1e-3
    assert "does not know (skipped; items: 1): 1\n" in capsys.readouterr().err


def test_a_log_with_other_columns_is_told_which_is_which(tmp_path, monkeypatch, capsys):
    made_up_model(tmp_path)
    monkeypatch.chdir(tmp_path)
    main(["export", "model", "--users", "users.npz"])
    log = pd.read_csv("log.csv", dtype=str).set_axis(["who", "what", "when"], axis=1)
    log.to_csv("other.csv", index=False)
    said = error_of("export", "model", "--users", "other.npz", "--ratings", "other.csv")
    assert "(--columns)" in said and not Path("other.npz").exists()
    told = ["--columns", "user=who", "item=what", "timestamp=when"]
    main(["export", "model", "--users", "other.npz", "--ratings", "other.csv", *told, "--items", "items.npz"])
    users, others = np.load("users.npz"), np.load("other.npz")
    assert others["user"].tolist() == users["user"].tolist()
    np.testing.assert_array_equal(others["vector"], users["vector"])
    assert np.load("items.npz")["item"].tolist() == [f"{item:03}" for item in range(ITEMS)]
    assert "give that log with --ratings FILE" in error_of("export", "model", "--users", "users.npz", *told)


def padded(histories):
    """Histories of tokens as one array, padded on the left with 0."""
    longest = max(map(len, histories))
    return np.stack([np.pad(history, (longest - len(history), 0)) for history in histories])


@needs_onnx
@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("bert4rec", {}),
        ("modern-both", {}),
        ("modern-next", {}),  # causal
        ("modern-cloze", {"conv_size": 1, "layers": 1, "heads": 4}),
        ("bert4rec", {"max_length": 2, "layers": 1}),  # an item and its [MASK]
    ],
)
def test_onnxruntime_gives_the_scores_of_the_network(recipe, settings, tmp_path):
    """A hundred histories of any length, alone and together."""
    onnxruntime = pytest.importorskip("onnxruntime")
    checkpoint = made_up_model(tmp_path, recipe, **settings)
    main(["export", str(tmp_path / "model"), "--onnx", str(tmp_path / "model.onnx")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv", "model", "model.onnx"]  # one file
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    longest = settings.get("max_length", LONGEST) - (recipe == "bert4rec")
    assert json.loads(metadata["items"]) == checkpoint.vocabulary.items.tolist()
    assert int(metadata["max_length"]) == longest
    random = np.random.default_rng(0)
    histories = [random.permutation(ITEMS)[: 1 + number % longest] + 1 for number in range(100)]
    offsets = np.cumsum([0, *map(len, histories)])
    expected = checkpoint.model.score(Sequences(np.concatenate(histories), offsets, np.arange(100)))
    for size in (1, 7, 100):
        batches = [histories[start : start + size] for start in range(0, 100, size)]
        scores = np.concatenate([session.run(["scores"], {"history": padded(batch)})[0] for batch in batches])
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4)
        np.testing.assert_array_equal((-scores).argsort(1)[:, :10], (-expected).argsort(1)[:, :10])


@needs_onnx
def test_the_code_of_the_documentation_answers_without_pytorch(tmp_path):
    pytest.importorskip("onnxruntime")
    checkpoint = made_up_model(tmp_path)
    done = run(
        "export", "model", *("--items", "items.npz", "--users", "users.npz", "--onnx", "model.onnx"), folder=tmp_path
    )
    assert done.returncode == 0 and done.stderr == "" and done.stdout.count("\n") == 3  # nothing of PyTorch's own
    text = (PROJECT / "docs" / "every_day.md").read_text(encoding="utf-8").partition("## Vectors and ONNX\n")[2]
    vectors, served = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    alone = "import sys; sys.modules |= dict.fromkeys(('torch', 'onnx', 'pandas', 'bertrec_utils'))\n"
    history = [*checkpoint.vocabulary.items[[5, 9, 2]].tolist(), "new"]
    shown = "print(json.dumps({}))\n".format
    code = (
        alone + vectors + "import json\n" + shown("scores[3].tolist()") + served + shown(f"recommend({history}, k=4)")
    )
    command = [sys.executable, "-W", "error", "-c", code]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    scores, best = map(json.loads, answer.stdout.splitlines())
    sequences = checkpoint.load_dataset().sequences
    np.testing.assert_allclose(scores, checkpoint.model.score(sequences)[3], rtol=0, atol=1e-5)
    [expected] = checkpoint.model.score(Sequences(np.array([6, 10, 3]), np.array([0, 3]), np.arange(1)))
    expected[[5, 9, 2]] = -np.inf
    assert best == checkpoint.vocabulary.items[(-expected).argsort()[:4]].tolist()


def test_what_cannot_be_exported_is_explained(tmp_path, monkeypatch):
    made_up_model(tmp_path)
    monkeypatch.chdir(tmp_path)
    log = Path("log.csv").read_text()
    assert "name what to write: --items FILE.npz, --users" in error_of("export", "model")
    for option, file, kind in (
        ("--items", "log.csv", "npz"),
        ("--onnx", "model/model.safetensors", "onnx"),
        ("--users", "no/users.npz", "npz"),
    ):
        message = error_of("export", "model", option, file)
        assert message == f"error: {option} {file} is not written; name a .{kind} file in a folder that is there"
    message = error_of("export", "model", "--items", "all.npz", "--users", "model/../all.npz")
    assert message == "error: --items and --users are both model/../all.npz; name two files"
    Path("link.npz").symlink_to("log.csv")
    message = error_of("export", "model", "--items", "link.npz")
    assert message == "error: --items link.npz is the log; name another file"
    Path("link.npz").unlink()
    assert Path("log.csv").read_text() == log
    Path("log.csv").unlink()
    message = error_of("export", "model", "--users", "users.npz")
    assert "there is no file " in message and message.endswith("or pass the log with --ratings FILE")
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as if it were not installed
    message = error_of("export", "model", "--items", "items.npz", "--onnx", "model.onnx")
    assert "--onnx needs the extra onnx" in message and message.endswith("pip install 'bertrec-utils[onnx]'")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]  # told before any work


@needs_onnx
def test_a_pytorch_that_cannot_write_the_network_is_named(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    made_up_model(tmp_path)
    by_value = lambda self, history: history if history.sum() > 3 else -history  # noqa: E731  # no exporter can tell
    monkeypatch.setattr(NextItemScores, "forward", by_value)
    message = error_of("export", tmp_path / "model", "--onnx", tmp_path / "model.onnx")
    assert f"PyTorch {torch.__version__} cannot write this network as ONNX; use " in message
    assert not (tmp_path / "model.onnx").exists()


def test_the_command_line_loads_nothing_of_onnx():
    code = "import sys, bertrec_utils.__main__; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "bertrec_utils.commands.export" in loaded
    assert not {"onnx", "onnxscript", "onnxruntime", "pyarrow.parquet", "polars"} & set(loaded)
