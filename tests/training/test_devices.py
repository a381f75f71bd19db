"""Training in several processes, started by torchrun as a user starts it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from bertrec_utils.__main__ import main
from bertrec_utils.settings import get_preset
from bertrec_utils.training import devices
from bertrec_utils.training.checkpoints import load
from bertrec_utils.training.trainer import new_model

SCRIPT = Path(__file__).with_name("train_in_processes.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
TORCHRUN += ["--rdzv-endpoint", "localhost:0"]


def command(launcher, folder, **settings):
    """On the CPU: two processes cannot share one GPU."""
    options = ["--preset", "tiny", "--device", "cpu", "--out", str(folder)]
    return [*launcher, str(SCRIPT), json.dumps(settings), "train", *options]


def run(*arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False, timeout=300)


def test_two_processes_train_as_one_does(tmp_path):
    """The same targets, so the same loss curve but for rounding, full and sampled; without dropout, which each process
    draws by itself."""
    for negatives in (0, 100):
        settings = {"dropout": 0.0, "precision": "float32", "negatives": negatives}
        one, two = tmp_path / f"one-{negatives}", tmp_path / f"two-{negatives}"
        alone = run(*command([sys.executable], one, **settings))
        together = run(*command(TORCHRUN, two, **settings))
        assert alone.returncode == 0 and "processes in" not in alone.stdout, alone.stderr
        assert together.returncode == 0 and together.stdout.count("in 2 processes") == 1, together.stderr
        assert sum(line.startswith("epoch ") for line in together.stderr.splitlines()) == 3
        first, second = load(one).history, load(two).history
        np.testing.assert_allclose(second.loss, first.loss, rtol=1e-5)
        np.testing.assert_allclose(second["ndcg@10"], first["ndcg@10"], atol=2e-3)  # a tie or two may turn round
        ends = [json.loads(Path(f"{two}.{rank}.json").read_text()) for rank in (0, 1)]
        assert ends[0]["random"] != ends[1]["random"]  # each has dropout of its own
        # neither leaves before the main process has finished the model
        assert [end["found"] for end in ends] == [["items.csv", "model.safetensors"]] * 2
        weights = load(two).model.state_dict()
        for name, value in load(one).model.state_dict().items():
            torch.testing.assert_close(weights[name], value, atol=2e-3, rtol=1e-2)


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc to find the processes in")
def test_when_one_is_killed_all_end_and_one_process_goes_on(tmp_path):
    folder, errors = tmp_path / "run", tmp_path / "errors.txt"
    long = {"epochs": 400}
    with errors.open("w") as file:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        launcher = subprocess.Popen(command(TORCHRUN, folder, **long), stderr=file, stdout=file, env=environment)
        try:
            while "epoch 3/400" not in errors.read_text():
                assert launcher.poll() is None, errors.read_text()
                time.sleep(0.05)
            workers = children_of(launcher.pid)
            assert len(workers) == 2
            os.kill(workers[1], signal.SIGKILL)
            assert launcher.wait(60) != 0
        finally:
            launcher.terminate()  # of one that has ended, nothing
    said = errors.read_text()
    assert "goes on from the last whole epoch" in said and "Signal 9 (SIGKILL)" in said
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    done = sum(line.startswith("epoch ") for line in said.splitlines())
    alone = subprocess.Popen(
        command([sys.executable], folder, **long), stdout=subprocess.PIPE, text=True, env=environment
    )
    lines = [alone.stdout.readline() for _ in range(3)]
    alone.kill()
    alone.wait()
    alone.stdout.close()
    assert lines[0].startswith("data: ") and f"after epoch {done}" in lines[1] and "processes in" not in lines[2]


def test_a_batch_that_is_too_small_is_explained(tmp_path):
    done = run(*command(TORCHRUN, tmp_path / "run", batch_size=1))
    assert done.returncode != 0 and "too small for 2 processes" in done.stderr


def test_a_device_that_is_not_there_is_explained(tmp_path):
    device = "mps" if torch.cuda.is_available() else "cuda"
    done = run(*command([sys.executable], tmp_path / "run"), "--device", device)
    assert done.returncode == 1 and f"PyTorch finds no {device} device here" in done.stderr


def test_without_torchrun_there_is_one_process():
    assert devices.world_size() == 1 and devices.rank() == 0 and devices.is_main_process()
    values = torch.ones(2)
    assert devices.all_reduce_sum(values) is values and devices.broadcast(b"x") == b"x"
    model = torch.nn.Linear(1, 1)
    assert devices.wrap_ddp(model) is model
    with devices.process_group(torch.device("cpu")), devices.main_process_first():
        pass


def test_a_process_that_a_cluster_has_numbered_trains_alone(dataset, tmp_path, monkeypatch):
    """As Slurm's, which are not those of one training."""
    for name in devices.TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    expected = new_model(dataset, get_preset("tiny"), device=torch.device("cpu")).state_dict()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = new_model(dataset, get_preset("tiny"), device=torch.device("cpu")).state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    main(["train", "--preset", "tiny", "--device", "cpu", "--set", "epochs=1", "--out", str(tmp_path)])
    assert load(tmp_path).is_finished


def test_a_device_by_its_name():
    assert devices.find_device("cpu") == devices.find_device(torch.device("cpu")) == torch.device("cpu")
    assert devices.find_device(None) == devices.best_device()
    with pytest.raises(ValueError, match="there is no device 'gpu'; choose one of cpu, cuda, mps"):
        devices.find_device("gpu")
    for name in ("meta", "cuda:99"):
        with pytest.raises(ValueError, match=f"finds no {name} device here"):
            devices.find_device(name)
