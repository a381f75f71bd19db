"""Parts of a training step that compute what PyTorch's do, faster on a CPU: benchmarks/step_parts.py compares."""

import torch
import torch.nn.functional as F
from torch import nn

ROWS = 256  # scores of so many questions stay in the processor's cache


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether matrix products of bfloat16, half the size of float32, are several times as fast on `device`.

    On a CPU they are where it has Intel's AMX (Xeons since 2023); elsewhere they are slower than those of float32.
    """
    if device.type == "cpu":
        return bool(torch.cpu.get_capabilities().get("amx_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Scaled dot-product attention, (B, H, Q, D / H); on a CPU not in bfloat16: those kernels are slower there."""
    if query.device.type != "cpu" or query.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(query.float(), key.float(), value.float(), attn_mask=visible)


class ChunkedCrossEntropy(torch.autograd.Function):
    """`F.cross_entropy(F.linear(states, weight, bias), labels)`, and the gradients with it, a few rows at a time.

    The whole (N, V) matrix of scores is never in memory. With p the softmax of a row's scores,
    d loss / d scores = (p - onehot(label)) / N; the one-hot part is added at the end. Under autocast the products are
    those of bfloat16, but sums and scores stay float32.
    """

    @staticmethod
    def forward(context, states, weight, bias, labels):
        """`states` (N, D), `weight` (V, D), `bias` (V,), `labels` (N,) int64 below V: the mean loss in nats."""
        device = states.device.type
        faster = torch.is_autocast_enabled(device)
        usual = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("medium" if faster else usual)
        try:
            with torch.autocast(device, enabled=False):
                states = states.to(weight.dtype)
                loss, gradients = loss_and_gradients(states, weight, bias, labels)
        finally:
            torch.set_float32_matmul_precision(usual)
        context.save_for_backward(*gradients)
        return loss

    @staticmethod
    def backward(context, gradient):
        return *(gradient * part for part in context.saved_tensors), None


def loss_and_gradients(
    states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The loss, and its gradients by states, weight and bias."""
    count = len(states)
    scores = states.new_empty(min(ROWS, count), len(weight))
    total = states.new_zeros(())
    state_grad, weight_grad, bias_grad = torch.empty_like(states), torch.zeros_like(weight), torch.zeros_like(bias)
    for start in range(0, count, ROWS):
        rows = slice(start, start + ROWS)
        part = torch.addmm(bias, states[rows], weight.T, out=scores[: len(states[rows])])
        target = part.gather(1, labels[rows, None])
        highest = part.amax(1, keepdim=True)
        sums = part.sub_(highest).exp_().sum(1, keepdim=True)
        total += (sums.log() + highest - target).sum()
        scale = 1 / (sums * count)  # part * scale is p / N
        state_grad[rows] = part @ weight * scale
        weight_grad.addmm_(part.T, states[rows] * scale)
        bias_grad.addmv_(part.T, scale[:, 0])
    state_grad -= weight[labels] / count
    weight_grad.index_add_(0, labels, states, alpha=-1 / count)
    bias_grad.index_add_(0, labels, torch.full_like(labels, -1 / count, dtype=bias.dtype))
    return total / count, [state_grad, weight_grad, bias_grad]


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
