"""Two parts of a training step that compute what PyTorch's do, faster on a CPU: benchmarks/step_parts.py compares."""

import torch
import torch.nn.functional as F
from torch import nn

ROWS = 256  # scores of so many questions stay in the processor's cache


class ChunkedCrossEntropy(torch.autograd.Function):
    """`F.cross_entropy(F.linear(states, weight, bias), labels)`, and the gradients with it, a few rows at a time.

    The whole (N, V) matrix of scores is never in memory. With p the softmax of a row's scores,
    d loss / d scores = (p - onehot(label)) / N; the one-hot part is added at the end.
    """

    @staticmethod
    def forward(context, states, weight, bias, labels):
        """`states` (N, D), `weight` (V, D), `bias` (V,), `labels` (N,) int64 below V: the mean loss in nats."""
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
        context.save_for_backward(state_grad, weight_grad, bias_grad)
        return total / count

    @staticmethod
    def backward(context, gradient):
        return *(gradient * part for part in context.saved_tensors), None


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
