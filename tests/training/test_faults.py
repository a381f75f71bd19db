"""What goes wrong in a long run: kills, a disk that takes no more, two trainings in one folder, no finite loss."""

import contextlib
import errno
import math
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from uuid import uuid4

import pytest
import torch

from bertrec_utils.common import progress_bar
from bertrec_utils.settings import get_preset
from bertrec_utils.training.checkpoints import ITEMS, MODEL, load
from bertrec_utils.training.trainer import fit, new_model
from bertrec_utils.training.unfinished import UNFINISHED

TINY = get_preset("tiny")
KILLS = 20


def train(dataset, settings, folder, **callbacks):
    model = new_model(dataset, settings, device=torch.device("cpu"))  # a GPU adds up in any order: other last bits
    return fit(model, dataset, settings, folder=folder, **callbacks)


def assert_same_model(left: Path, right: Path) -> None:
    """The same in every bit, but for the seconds that the epochs took."""
    one, other = load(left), load(right)
    assert one.history.drop(columns="seconds").equals(other.history.drop(columns="seconds"))
    assert one.linear_weight == other.linear_weight and one.settings == other.settings
    weights = other.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in one.model.state_dict().items())


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_killed_at_random_moments_ends_as_if_nothing_had_happened(processes, tmp_path):
    def run(folder, kills):
        command = [sys.executable, Path(__file__).with_name("kill_at_random.py"), tmp_path / folder]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*map(str, command), str(processes), str(kills)], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
        assert f"ends: {[0] * processes}" in done.stdout
        return done.stdout

    run("whole", 0)
    said = run("killed", KILLS)
    assert int(re.search(r"killed while it trained: (\d+)", said)[1]) >= KILLS // 2
    assert_same_model(tmp_path / "whole", tmp_path / "killed")
    if processes > 1:
        assert "a survivor said: another process of this training has ended; the same command" in said
    left = {path.name for path in (tmp_path / "killed").iterdir()}  # a fast machine ends the run before the last kills
    assert {name for name in left if not name.startswith("previous-")} <= {".lock", "items.csv", "model.safetensors"}


def test_a_training_removes_what_a_killed_one_has_left_and_nothing_else(dataset, tmp_path):
    own = [tmp_path / f"{name}.{uuid4().hex}.partial" for name in (UNFINISHED, MODEL, ITEMS)]
    foreign = [
        tmp_path / name for name in ("movie.mkv.partial", f"{MODEL}.partial", f"lists.csv.{uuid4().hex}.partial")
    ]
    for path in [*own, *foreign]:
        path.write_text("a part")
    train(dataset, TINY.change(epochs=1), tmp_path)
    assert {*tmp_path.glob("*.partial")} == {*foreign}


@contextlib.contextmanager
def at_most(size):
    """The system refuses to write more than `size` bytes into a file, as it does when the disk is full."""
    resource = pytest.importorskip("resource")  # Windows has none
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_loses_nothing(dataset, tmp_path):
    """It is full from the second epoch on."""

    def fill_the_disk(trainer):
        if len(trainer.history) == 1:
            fill_the_disk.kept = (tmp_path / UNFINISHED).read_bytes()
            fill()

    with at_most(100_000) as fill, pytest.raises(OSError, match="make room there, and the same run goes on") as found:
        train(dataset, TINY, tmp_path, on_epoch=fill_the_disk)
    assert found.value.__cause__.errno == errno.EFBIG
    assert (tmp_path / UNFINISHED).read_bytes() == fill_the_disk.kept
    assert not list(tmp_path.glob("*.partial"))
    train(dataset, TINY, tmp_path)
    train(dataset, TINY, tmp_path / "whole")
    assert_same_model(tmp_path, tmp_path / "whole")


def test_a_disk_that_is_full_at_the_very_end_loses_nothing(dataset, tmp_path):
    """After the last epoch only the weight of the baseline is missing."""

    def fill_the_disk(trainer):
        if len(trainer.history) == TINY.training.epochs:
            fill_the_disk.kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
            fill()

    with (
        at_most(100_000) as fill,
        pytest.raises(OSError, match=r"cannot write to .*; make room there, and the same run"),
    ):
        train(dataset, TINY, tmp_path, on_epoch=fill_the_disk)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == fill_the_disk.kept
    assert not load(tmp_path).is_finished
    train(dataset, TINY, tmp_path)
    train(dataset, TINY, tmp_path / "whole")
    assert_same_model(tmp_path, tmp_path / "whole")


@contextlib.contextmanager
def without_rights():
    """As a user who may not write everywhere, if these tests run as root, who may."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        yield


def test_a_folder_that_cannot_be_written_is_explained(dataset, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for target in (folder, folder / "new"):
        folder.chmod(0o500)
        try:
            with (
                without_rights(),
                pytest.raises(OSError, match=r"cannot write to .*; get permission there, or say --out"),
            ):
                train(dataset, TINY, target)
        finally:
            folder.chmod(0o700)
    assert not list(folder.iterdir())
    (tmp_path / "file").write_text("a file")
    for target in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OSError, match=r"cannot write to .*; that is no folder, say --out DIR$"):
            train(dataset, TINY, target)
    assert (tmp_path / "file").read_text() == "a file"


def test_a_folder_that_is_deleted_during_the_run_is_explained(dataset, tmp_path):
    folder = tmp_path / "run"

    def delete(trainer):
        if len(trainer.history) == 2:
            folder.rename(tmp_path / "away")

    with pytest.raises(OSError, match=r"cannot write to .*run .*; put the folder back, and the same run goes on after"):
        train(dataset, TINY, folder, on_epoch=delete)
    (tmp_path / "away").rename(folder)
    assert len(load(folder).history) <= 2
    train(dataset, TINY, folder)
    train(dataset, TINY, tmp_path / "whole")
    assert_same_model(folder, tmp_path / "whole")


def test_a_second_training_in_the_same_folder_is_refused(dataset, tmp_path):
    """It says so at once, and the first one goes on undisturbed."""
    refusals = []

    def start_another(trainer):
        with pytest.raises(ValueError, match="another training is at work in") as refused:
            train(dataset, TINY, tmp_path)
        refusals.append(refused)

    train(dataset, TINY, tmp_path, on_epoch=start_another)
    assert len(refusals) == TINY.training.epochs
    train(dataset, TINY, tmp_path / "whole")
    assert_same_model(tmp_path, tmp_path / "whole")
    train(dataset, TINY, tmp_path)  # it has ended: the next one may begin


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_epoch(dataset, tmp_path):
    kept = {}

    def spoil(trainer):
        if len(trainer.history) == 2:
            kept.update({path.name: path.read_bytes() for path in tmp_path.iterdir()})
            with torch.no_grad():
                trainer.model.item_bias[0] = math.nan

    with pytest.raises(
        FloatingPointError, match=r"the loss is nan in step 1 of epoch 3; .* is kept; train with a.* folder"
    ):
        train(dataset, TINY, tmp_path, on_epoch=spoil)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept
    assert math.isfinite(load(tmp_path).model.item_bias.detach().sum())


def test_a_loss_is_looked_at_within_an_epoch_too(dataset, tmp_path):
    """Not only at its end, which may be half an hour away: 120 steps an epoch here, and the 60th is bad."""
    seen = []

    def spoil(trainer, batch):
        seen.append(batch)
        if len(seen) == 59:
            torch.nn.init.constant_(trainer.model.item_bias, math.nan)

    with pytest.raises(FloatingPointError, match=r"in step 60 of epoch 1; train with a lower learning rate$"):
        train(dataset, TINY.change(batch_size=1), tmp_path, on_step=spoil)
    assert len(seen) < 120


def test_no_thread_is_left_behind(dataset, tmp_path):
    def interrupt(trainer, batch):
        raise KeyboardInterrupt

    progress_bar().close()  # the first one starts a thread that watches over all bars
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        train(dataset, TINY, tmp_path, on_step=interrupt)
    assert threading.active_count() == before
