"""The commands of `python -m bertrec_utils`, one module each; here, the arguments and checks that they share."""

import argparse
import re
from collections.abc import Iterable
from pathlib import Path

from ..common import check_writable, is_same_file
from ..data.releases import RELEASES
from ..settings import DataSettings, OwnLog
from ..training.checkpoints import ITEMS, MODEL, Checkpoint
from ..training.devices import DEVICES
from ..training.unfinished import UNFINISHED

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # characters that would move the cursor or colour the terminal


def log_arguments(titles: bool = True) -> argparse.ArgumentParser:
    """The shared arguments that locate a log of the user's own, and its `titles`, and choose the device."""
    log = argparse.ArgumentParser(add_help=False)
    log.add_argument("--ratings", type=Path, metavar="FILE", help="a log of your own: user, item, timestamp")
    if titles:
        log.add_argument("--items", type=Path, metavar="FILE", help="its titles: item, title")
    told = "what their columns are, if they have no usual names: user=who item=what timestamp=when"
    log.add_argument("--columns", nargs="+", default=[], metavar="WHAT=NAME", help=told)
    log.add_argument("--device", choices=DEVICES, help="default: cuda, then mps, then cpu, the first there is")
    return log


def model_arguments() -> argparse.ArgumentParser:
    """The shared arguments that choose a trained model and how it answers."""
    trained = argparse.ArgumentParser(add_help=False, parents=[log_arguments()])
    trained.add_argument("folder", type=Path, metavar="DIR", help="folder of a trained model")
    trained.add_argument(
        "--with-linear", action="store_true", help="mix in the linear baseline, fitted anew: seconds to two minutes"
    )
    trained.add_argument("--json", action="store_true", help="print the answer as JSON")
    return trained


def own_log(arguments: argparse.Namespace) -> OwnLog:
    """The settings for a log of the user's own, from --ratings, --items and --columns; empty without --ratings.
    ValueError if --items or --columns is given alone."""
    if (arguments.items or arguments.columns) and not arguments.ratings:
        option = "--items" if arguments.items else "--columns"
        raise ValueError(f"{option} is of a log of your own; give that log with --ratings FILE")
    log = OwnLog()
    if arguments.ratings:
        log["ratings_file"] = str(arguments.ratings.expanduser().resolve())
    if arguments.items:
        log["items_file"] = str(arguments.items.expanduser().resolve())
    if arguments.columns:
        log["columns"] = " ".join(arguments.columns)
    return log


def check_output(option: str, path: Path | None, *suffixes: str) -> None:
    """Raise ValueError, before any work is done, if `path` cannot be written or has none of the `suffixes`."""
    if path and (path.is_dir() or not path.parent.is_dir() or (suffixes and path.suffix not in suffixes)):
        kind = f"{' or '.join(suffixes)} file" if suffixes else "file"
        raise ValueError(f"{option} {path} is not written; name a {kind} in a folder that is there")
    if path:
        check_permission(f"{option} {path}", path)


def check_permission(told: str, path: Path, kind: str = "file in a folder") -> None:
    """Raise ValueError, before any work is done, if `path` cannot be written; `told` is how it was given."""
    try:
        check_writable(path)
    except OSError as error:
        advice = f"name a {kind} that you may write to"
        raise ValueError(f"{told} cannot be written ({error.strerror}); {advice}") from error


def check_no_input(option: str, path: Path | None, inputs: Iterable[tuple[str, str | Path | None]]) -> None:
    """Raise ValueError, before any work is done, if `path` would overwrite one of the `inputs` (what, file)."""
    for what, file in inputs:
        if path and file and is_same_file(path, file):
            raise ValueError(f"{option} {path} is {what}; name another file")


def files_of(checkpoint: Checkpoint, log: OwnLog) -> list[tuple[str, str | Path | None]]:
    """What a command reads for a model, or may read later: the log and its titles, told as `log` or remembered, and
    the files in the model's folder."""
    data, folder = checkpoint.settings.data, checkpoint.folder or Path()
    logs = [("the log", log.get("ratings_file")), ("the log", data.ratings_file)]
    titles = [("the file of titles", log.get("items_file")), ("the file of titles", data.items_file)]
    return [*logs, *titles, *(("a file of the model", folder / name) for name in (MODEL, ITEMS, UNFINISHED))]


def noun_of(data: DataSettings) -> str:
    """What an item of the data is called on screen: film or item."""
    release = RELEASES.get(data.release or "")  # None: of a version that had another
    return "film" if not data.is_own and (release is None or release.movies_file) else "item"


def scorer_name(checkpoint: Checkpoint, with_linear: bool) -> str:
    mixed = f" + {checkpoint.linear_weight} x linear baseline" if with_linear else ", network alone"
    return checkpoint.describe() + mixed


def printable(text: str) -> str:
    """`text` with control characters replaced, so that a file cannot send commands to the terminal."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
