"""Start a training, kill it at a random moment, start it again, many times; then let it end. test_faults.py runs this.

    python tests/training/kill_at_random.py FOLDER PROCESSES KILLS

Processes are forked from one that has imported everything, so that a start takes no time. Prints how often the run was
killed while it trained (and not before or after), and what a survivor said last.
"""

import os
import random
import signal
import socket
import sys
import time
from pathlib import Path

import torch
import torch._dynamo  # an optimizer imports it when it is made, which takes a second

from bertrec_utils.data.dataset import load_dataset
from bertrec_utils.settings import get_preset
from bertrec_utils.training.devices import process_group
from bertrec_utils.training.trainer import fit, new_model
from bertrec_utils.training.unfinished import UNFINISHED

CPU = torch.device("cpu")
SETTINGS = get_preset("tiny").change(epochs=100, dropout=0.3)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def train(dataset, folder: Path, rank: int, count: int, port: int) -> None:
    """One process of a training, to its end; its exit status is 0 unless something is wrong."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    status = 1
    try:
        with process_group(CPU):
            fit(new_model(dataset, SETTINGS, device=CPU), dataset, SETTINGS, folder=folder)
        status = 0
    except ConnectionError as error:
        (folder.parent / "said.txt").write_text(str(error))
    finally:
        os._exit(status)


def start(dataset, folder, count) -> list[int]:
    port = free_port()
    children = []
    for rank in range(count):
        child = os.fork()
        if not child:
            train(dataset, folder, rank, count, port)
        children.append(child)
    return children


def seconds_to_first_epoch(dataset, folder, count) -> float:
    """How long a start takes here and now, until there is something to go on from."""
    started = time.monotonic()
    children = start(dataset, folder, count)
    while not (folder / UNFINISHED).exists():
        time.sleep(0.01)
    for child in children:
        os.kill(child, signal.SIGKILL)
    end(children, 5)
    return time.monotonic() - started


def end(children: list[int], patience: float) -> list[int]:
    """Their exit statuses; who has not ended after `patience` seconds is killed, as torchrun does it."""
    statuses, limit = {}, time.monotonic() + patience
    while len(statuses) < len(children):
        for child in set(children) - set(statuses):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                statuses[child] = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > limit:
                os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    return [statuses[child] for child in children]


def main():
    folder, count, kills = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    dataset = load_dataset(SETTINGS.data)
    dataset.split  # noqa: B018 - made once, before the first fork
    chance = random.Random(0)
    in_training = 0
    usual = seconds_to_first_epoch(dataset, folder, count) if kills else 0
    for _ in range(kills):
        children = start(dataset, folder, count)
        time.sleep(chance.uniform(0, 2 * usual))
        os.kill(chance.choice(children), signal.SIGKILL)
        end(children, 5)
        in_training += (folder / UNFINISHED).exists()  # else it had come to its end
    print("killed while it trained:", in_training)
    print("ends:", end(start(dataset, folder, count), 300))
    said = folder.parent / "said.txt"
    print("a survivor said:", said.read_text() if said.exists() else "nothing")


if __name__ == "__main__":
    main()
