"""Runs that are not over: their state on disk, whether it is this run's, and the lock that keeps a second one out."""

import contextlib
import errno
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import torch

from ..common import display_path, is_main_process, is_same_file, partials, print_status, replace_file
from ..data.dataset import Dataset
from ..model.layers import Network
from ..settings import Settings
from .checkpoints import FORMAT, ITEMS, MODEL, last_set_aside, put_back

UNFINISHED, LOCK = "unfinished.pt", ".lock"
THOSE_BEFORE = "those of the model before"  # where a training goes on from a model


def run_key(initial_weights: str, dataset: Dataset, settings: Settings, seed: int) -> dict[str, Any]:
    """What must be the same for a run to go on, by name."""
    return settings.flat() | {
        "ratings_file": None,  # a log may move: the data are it
        "items_file": None,
        "columns": None,
        "repeats": None,
        "seed": seed,
        "data": _short_digest(dataset.fingerprint),
        "initial weights": initial_weights,
    }


def digest_of_weights(model: Network) -> str:
    """A digest of the weights as they are now, roughly: another machine may round a start from counts differently."""
    return _short_digest({name: f"{value.norm():.3g}" for name, value in model.state_dict().items()})


def _short_digest(parts: dict[str, str]) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write `state` and its checksum; a file that is there is replaced only when the new one is whole."""
    content = io.BytesIO()
    torch.save({"format": FORMAT} | state, content)
    digest = hashlib.sha256(content.getvalue()).digest()
    replace_file(path, lambda partial: partial.write_bytes(digest + content.getvalue()))


def read_state(path: Path, content: bytes) -> dict[str, Any]:
    """What `Trainer.save` wrote; ValueError if it is damaged or of another version."""
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        raise ValueError(f"{path} is damaged; delete it to start over")
    try:
        state = torch.load(io.BytesIO(content[32:]), map_location="cpu", weights_only=True)
        version = state.get("format", 1)
        state["run_key"] = dict(state["run_key"]) if version == FORMAT else {}
    except Exception as error:  # the right checksum of what is no state of a run
        raise ValueError(f"{path} is damaged ({type(error).__name__}); delete it to start over") from error
    if version != FORMAT:
        raise ValueError(f"{path} is of another version of this package; finish it with that one, or delete it")
    return state


def check_run_key(path: Path, there: dict[str, Any], here: dict[str, Any]) -> None:
    """ValueError if the run in `path`, whose key is `there`, is not the one that goes on, whose key is `here`."""
    names = [name for name, value in here.items() if there.get(name) != value]
    if differing := [f"{name} is {there.get(name)}, not {here[name]}" for name in names]:
        problem = f"{path.parent} holds an unfinished run of another kind ({'; '.join(differing)})"
        advice = f"choose another folder (--out DIR), or delete {path}"
        if there.get("initial weights") == THOSE_BEFORE != here["initial weights"]:
            advice = f"to resume it, say train DIR --continue (in Python, fit(..., continued=True)); else {advice}"
        elif here["initial weights"] == THOSE_BEFORE:
            advice = f"finish it with the command that started it, or delete {path}"
        elif names == ["initial weights"]:  # of a model that has been trained since, as by the run itself
            advice = f"to resume it, pass an untrained model of the same seed (new_model); else {advice}"
        raise ValueError(f"{problem}; {advice}")


def undo_continuation(folder: Path, dataset: Dataset, settings: Settings, seed: int) -> bool:
    """Where training that went on from a model was interrupted, and nothing but its log has changed since, so that it
    cannot be resumed: put that model back into `folder`. Whether it did. ValueError as in `fit`."""
    path, expected = folder / UNFINISHED, run_key(THOSE_BEFORE, dataset, settings, seed)
    if not path.exists():
        return False
    with locked(folder):
        there = read_state(path, path.read_bytes())["run_key"]
        if [name for name, value in expected.items() if there.get(name) != value] != ["data"] or not put_back(folder):
            return False
        path.unlink()
    print_status(f"the log has changed since the interrupted training in {display_path(folder)}: it starts over")
    return True


def check_items_file(folder: Path, dataset: Dataset, settings: Settings) -> None:
    """ValueError if ITEMS in `folder`, which the first epoch writes, is a file of the user's own: the log, its titles,
    or any that no run has left, for there is neither a model nor UNFINISHED."""
    path = folder / ITEMS
    if not os.path.isfile(path):  # Path.is_file raises where there are no rights
        return
    given = [file for file in (settings.data.ratings_file, settings.data.items_file) if file]
    is_given = any(is_same_file(path, Path(file).expanduser()) for file in given)
    if is_given or not (_holds_a_run(folder) or _is_table_of(dataset, path)):
        advice = "choose another folder (--out DIR), or rename that file"
        raise ValueError(f"{path} is a file of your own, which training would overwrite; {advice}")


def _holds_a_run(folder: Path) -> bool:
    return (folder / MODEL).exists() or (folder / UNFINISHED).exists() or last_set_aside(folder) is not None


def _is_table_of(dataset: Dataset, path: Path) -> bool:
    """Whether `path` is what a run that was killed in its first save has left: overwriting it loses nothing."""
    if dataset.item_table is None and dataset.log is None:
        return False
    return path.read_bytes().splitlines() == dataset.items.to_csv(index=False).encode().splitlines()


@contextlib.contextmanager
def locked(folder: Path | None) -> Iterator[None]:
    """Hold the lock of `folder` inside the `with`; the system releases it however the process ends. ValueError if
    another training holds it."""
    if not folder or not is_main_process():
        yield
        return
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LOCK).touch()
    try:
        with filelock.FileLock(folder / LOCK, timeout=0):
            for name in (MODEL, ITEMS, UNFINISHED):
                for partial in partials(folder / name):
                    partial.unlink()  # of a process that was killed while it wrote
            yield
    except filelock.Timeout:
        raise ValueError(f"another training is at work in {folder}; wait for it, or choose another folder") from None


@contextlib.contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Re-raise an OSError that occurs inside the `with`, with advice on what to do about it."""
    try:
        yield
    except OSError as error:
        no_rights, no_folder = "get permission there, or say --out DIR", "that is no folder, say --out DIR"
        advice: dict[int | None, str] = dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), no_rights)
        advice |= dict.fromkeys((errno.EEXIST, errno.ENOTDIR), no_folder)
        remedy = "put the folder back" if error.errno == errno.ENOENT else "make room there"
        goes_on = f"{remedy}, and the same run goes on after the last epoch that was kept"
        problem = f"cannot write to {folder} ({error.strerror or error})"
        raise OSError(f"{problem}; {advice.get(error.errno, goes_on)}") from error
