"""Several processes that train one model together, on one machine or more: torchrun starts them and numbers them.

Without torchrun there is one process, and nothing here does anything.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

PATIENCE = timedelta(hours=2)  # the first process may have to download a release
LOST = "another process of this training has ended"
AGAIN = "the same command, with as many processes or others, goes on from the last whole epoch"


def number() -> int:
    """The rank of this process: 0, the first one, writes files and speaks."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    return number() == 0


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Meet the other processes that torchrun has started: by NCCL for a GPU each, else by gloo.

    ConnectionError if one of them ends before this one, ValueError for a `device` that they cannot share.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if device.type == "mps":
        raise ValueError("several processes cannot share Apple's GPU; train with one, or with --device cpu")
    if device.type == "cuda":
        if int(os.environ["LOCAL_RANK"]) >= torch.cuda.device_count():
            gpus = torch.cuda.device_count()
            raise ValueError(f"each process needs a GPU, and there are {gpus} here; start fewer, or say --device cpu")
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    signal.signal(signal.SIGTERM, _stop)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise ConnectionError(f"{LOST}; {AGAIN}") from error
        raise
    finally:
        dist.destroy_process_group()


def _stop(*_):
    """SystemExit, which nothing takes for an error of its own."""
    sys.exit(f"error: this process was told to stop, as torchrun does when another has ended; {AGAIN}")


@contextlib.contextmanager
def first_goes_first() -> Iterator[None]:
    """The first process runs what is inside before all others: what it leaves on disk is there for them."""
    if not is_first():
        dist.barrier()
    yield
    if is_first() and count() > 1:
        dist.barrier()


def together(model: nn.Module) -> nn.Module:
    """`model` as it is called in training: its gradients are the means over all processes, which start alike."""
    if count() == 1:
        return model
    return nn.parallel.DistributedDataParallel(model)


def summed(values: torch.Tensor) -> torch.Tensor:
    """The sum over all processes of equally large `values`."""
    if count() > 1:
        dist.all_reduce(values)
    return values


def from_first(content: bytes | None) -> bytes | None:
    """What the first process passes in, in every process."""
    box = [content]
    if count() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]
