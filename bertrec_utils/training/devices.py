"""Devices, precision, and several processes that train one model (torchrun). Without torchrun there is one process, and
the functions from `rank` on behave as for one."""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..common import is_main_process, raise_quietly

JOIN_TIMEOUT = timedelta(hours=2)  # the first process may have to download a release
PROCESS_LOST = "another process of this training has ended"
RESUME_ADVICE = "the same command, with any number of processes, goes on from the last whole epoch"
DEVICES = ("cpu", "cuda", "mps")
TORCHRUN = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}  # what it sets; a cluster may set some of them


def best_device() -> torch.device:
    """CUDA, then Apple's MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def find_device(name: str | torch.device | None) -> torch.device:
    """The device of that name, the best one for None; ValueError if PyTorch does not find it here."""
    if name is None:
        return best_device()
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"there is no device {str(name)!r}; choose one of {', '.join(DEVICES)}") from None
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0  # a driver may be too old for those it counts
    counts = {"cpu": 1, "cuda": gpus, "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= counts.get(device.type, 0):
        raise ValueError(f"PyTorch finds no {device} device here; leave --device out, or say --device cpu")
    return device


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether matrix products of bfloat16, half the size of float32, are several times as fast on `device`. On a CPU
    they are where it has Intel's AMX (Xeons since 2023); elsewhere they are slower than those of float32."""
    if device.type == "cpu":
        capabilities: Any = getattr(torch.cpu, "get_capabilities", dict)  # not in older PyTorch
        return bool(capabilities().get("amx_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


@contextlib.contextmanager
def matmul_precision(bfloat16: bool) -> Iterator[None]:
    """Inside the `with`, products of float32 matrices may be computed in bfloat16, if so asked."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if bfloat16 else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def release_memory() -> None:
    """Return freed memory to the system, on Linux; elsewhere nothing. glibc keeps it for later, in pieces that fit
    fewer and fewer of the batches to come, so that a process would grow."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the other processes that torchrun has started: by NCCL for a GPU each, else by gloo. ConnectionError if one
    of them ends before this one, ValueError for a `device` that they cannot share."""
    if not os.environ.keys() >= TORCHRUN or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    if device.type == "mps":
        raise ValueError("several processes cannot share Apple's GPU; train with one, or with --device cpu")
    if device.type == "cuda":
        number, gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()  # none told: a GPU a machine
        if number >= gpus:
            raise ValueError(f"each process needs a GPU, and there are {gpus} here; start fewer, or say --device cpu")
        torch.cuda.set_device(number)
    signal.signal(signal.SIGTERM, _stop)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=JOIN_TIMEOUT)
    try:
        yield
        dist.barrier()  # who leaves while another is still at work may take it down
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise ConnectionError(f"{PROCESS_LOST}; {RESUME_ADVICE}") from error
        raise
    finally:
        dist.destroy_process_group()


def _stop(*_: object) -> NoReturn:
    """SystemExit, which nothing takes for an error of its own."""
    problem = "this process was told to stop, as torchrun does when another has ended"
    raise_quietly(SystemExit(f"error: {problem}; {RESUME_ADVICE}"))


@contextlib.contextmanager
def main_process_first() -> Iterator[None]:
    """The main process runs what is inside before all others: what it leaves on disk is there for them."""
    if not is_main_process():
        dist.barrier()
    yield
    if is_main_process() and world_size() > 1:
        dist.barrier()


def wrap_ddp(model: nn.Module) -> nn.Module:
    """`model` as it is called in training: its gradients are the means over all processes, which start alike."""
    return model if world_size() == 1 else nn.parallel.DistributedDataParallel(model)


def all_reduce_sum(values: Tensor) -> Tensor:
    """Sum `values` over all processes, in place, and return them; they have the same shape and dtype in each."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def broadcast(content: bytes | None) -> bytes | None:
    """Return in every process the `content` that the main process passed in."""
    box = [content]
    if world_size() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]
