"""What a training step does its own way on a CPU, to save time (benchmarks/step_parts.py compares) or memory."""

import ctypes
import sys

import torch
import torch.nn.functional as F
from torch import nn

ALL = 2**31
CACHED_STATES = 2**13  # so many, four times as wide in the feed-forward layer, stay in a processor's cache


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether matrix products of bfloat16, half the size of float32, are several times as fast on `device`.

    On a CPU they are where it has Intel's AMX (Xeons since 2023); elsewhere they are slower than those of float32.
    """
    if device.type == "cpu":
        return bool(torch.cpu.get_capabilities().get("amx_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def rows_at_once(device: torch.device, length: int) -> int:
    """How many rows of `length` states to take through the network together.

    On a CPU as many as stay in its cache from one operation to the next, elsewhere all of them.
    """
    return max(1, CACHED_STATES // length) if device.type == "cpu" else ALL


def release_memory() -> None:
    """Give memory that is free again back to the system, on Linux; elsewhere nothing.

    glibc keeps it for later, in pieces that fit fewer and fewer of the batches to come, so that a process would grow.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Scaled dot-product attention, (B, H, Q, D / H); on a CPU not in bfloat16: those kernels are slower there."""
    if query.device.type != "cpu" or query.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(query.float(), key.float(), value.float(), attn_mask=visible)


class Dropout(nn.Module):
    """Dropout; on the CPU with one random byte per element, drawn eight at a time, and the rate rounded to 1/256.

    PyTorch's Bernoulli draws are slow there. ValueError unless 0 <= rate < 1.
    """

    def __init__(self, rate: float):
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"the dropout rate is {rate}; it must be at least 0 and below 1")
        self.rate = rate

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        threshold = min(255, round(256 * self.rate))
        if not self.training or threshold == 0 or states.device.type != "cpu":
            return F.dropout(states, self.rate, self.training)
        eights = torch.empty(-(-states.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = eights.view(torch.uint8)[: states.numel()].view(states.shape) >= threshold
        return states * (kept * (256 / (256 - threshold)))
