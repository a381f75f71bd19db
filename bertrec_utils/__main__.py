"""Unattended runs: python -m bertrec_utils train | evaluate | compare | recommend | export | page | download."""

import argparse
import codecs
import io
import json
import os
import signal
import sys
from functools import partial
from typing import Any

import torch

from .commands import printable
from .commands.compare import add_compare
from .commands.evaluate import add_evaluate
from .commands.export import add_export
from .commands.page import add_page
from .commands.recommend import add_recommend
from .commands.train import add_train, train_command
from .common import raise_quietly
from .data.releases import BUNDLED, BY_HAND, RELEASES, download


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="python -m bertrec_utils", description=__doc__)
    commands = main.add_subparsers(required=True, metavar="COMMAND")
    for add in (add_train, add_evaluate, add_compare, add_recommend, add_export, add_page):
        add(commands)
    fetch = commands.add_parser("download", help="fetch, verify and unpack a MovieLens release")
    fetch.add_argument(
        "name", metavar="NAME", help=", ".join(name for name in RELEASES if name not in (*BUNDLED, *BY_HAND))
    )
    fetch.set_defaults(run=lambda arguments: print(download(arguments.name)))
    return main


def main(arguments: list[str] | None = None) -> None:
    """Run a command; an error that the user can fix is printed as one line on stderr, with exit status 1."""
    chosen = parser().parse_args(arguments)
    if arguments is None:
        kept = "; the same command goes on from what it has kept" if chosen.run is train_command else ""
        signal.signal(signal.SIGTERM, partial(_stop, kept))
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored, as under nohup
            signal.signal(signal.SIGINT, _interrupt)
        _print_any_title(as_json=getattr(chosen, "json", False))
    try:
        chosen.run(chosen)
        sys.stdout.flush()  # a reader that has gone shows here, not at the exit
    except BrokenPipeError:  # as of `| head`: what is still to be flushed at the exit goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except torch.cuda.OutOfMemoryError:
        smaller = "set a smaller batch (--set batch_size=64), or " if chosen.run is train_command else ""
        sys.exit(f"error: the GPU has no memory left; {smaller}say --device cpu")
    except IndexError:
        raise  # a mistake of the program
    except (ValueError, LookupError, OSError, FloatingPointError) as error:
        message = error.args[0] if type(error) is KeyError and error.args else error  # whose text is in quotes
        sys.exit(f"error: {printable(str(message))}")


def _print_any_title(as_json: bool) -> None:
    """Where stdout is not UTF-8, as in a pipe on Windows, print `?` for characters it cannot encode; JSON is escaped to
    ASCII instead, which loses nothing."""
    if not isinstance(sys.stdout, io.TextIOWrapper) or sys.stdout.encoding.lower().startswith("utf"):
        return
    if as_json:
        codecs.register_error("json", _escape)
        sys.stdout.reconfigure(encoding="ascii", errors="json")
    else:
        sys.stdout.reconfigure(errors="replace")


def _escape(error: Any) -> tuple[str, int]:
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _interrupt(*_: object) -> None:
    # Python's own handler raises it without a value, and pandas before 3 then reports a file that cannot be parsed
    raise_quietly(KeyboardInterrupt())


def _stop(kept: str, *_: object) -> None:
    raise_quietly(SystemExit(f"error: told to stop (SIGTERM){kept}"))


if __name__ == "__main__":
    main()
