"""The loss: cross-entropy of each target against all items, or against a sample of them.

N targets, D width, V items, G samples of S items in all.

PyTorch 2.13 has `F.linear_cross_entropy`, chunked as ours is, and about as fast if it is told our chunk size; left to
itself it is much slower with many items on a CPU (benchmarks/step_parts.py). Ours works in older versions, too.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CACHED_ROWS = 256  # targets whose scores are computed together on a CPU, so that they stay in its cache
DEVICE_SCORES = 2**28  # scores in memory at once on a GPU, 1 GB in float32: enough to keep it busy


class Negatives(NamedTuple):
    """Samples of items that stand for all of them, each for some targets of a batch; G samples, S items in all."""

    items: Tensor  # (S,) int64: columns of the scores, one sample after the other
    log_probabilities: Tensor  # (S,) float32: log of the probability of each to be in the sample
    sizes: list[int]  # G: how many items each sample has
    targets: list[int]  # G: how many each is for, the first sample for the first targets, and so on


def inclusion_probabilities(counts: np.ndarray, expected: int) -> np.ndarray:
    """The probability (V,) of each item to be in a sample of `expected` items: proportional to the square root of its
    popularity, 1 + `counts` (V,), and at most 1.

    The root rather than the popularity itself, for an item that few watch is, to those few, as likely as a popular one.
    In a large sample the most popular are always there, and add no noise.
    """
    roots = np.sqrt(counts + 1.0)
    probabilities = np.ones(len(roots))
    if expected < len(roots):
        certain = 0  # how many of the most popular are always in
        by_root = np.sort(roots)[::-1]
        rest = by_root[::-1].cumsum()[::-1]  # the sum from each rank on
        while by_root[certain] * (expected - certain) > rest[certain]:
            certain += 1
        probabilities = np.minimum(1, roots * ((expected - certain) / rest[certain]))
    return probabilities


def sample_negatives(probabilities: np.ndarray, targets: list[int], random: np.random.Generator) -> Negatives:
    """One sample for each group of targets, `targets` (G,) of them, in which each item is with its probability (V,);
    a group without a target gets none.

    Systematic sampling: the groups are a ring, and an item is in a run of them that begins anywhere and is as long as
    its probability times the ring. So it is in as many groups as expected, give or take one, which makes the gradient
    of a batch steadier than independent draws do.
    """
    groups = len(targets)
    begins = random.random(len(probabilities)) * groups
    first = np.ceil(begins).astype(int)
    runs = np.ceil(begins + probabilities * groups).astype(int) - first  # groups that each item is in
    items = np.repeat(np.arange(len(probabilities)), runs)
    step = np.arange(len(items)) - np.repeat(runs.cumsum() - runs, runs)
    group = (np.repeat(first, runs) + step) % groups
    needed = np.array(targets)[group] > 0
    items, group = items[needed], group[needed]
    items = items[group.argsort(kind="stable")]
    logs = torch.from_numpy(np.log(probabilities[items]).astype(np.float32))
    return Negatives(torch.from_numpy(items), logs, np.bincount(group, minlength=groups).tolist(), targets)


def cross_entropy(
    states: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, negatives: Negatives | None = None
) -> Tensor:
    """The mean of -log softmax(`states` (N, D) x `weight` (V, D) + `bias` (V,)) at `labels` (N,) int64, in nats. Over
    all items, or with `negatives` over an estimate of that sum."""
    if negatives is None:
        return ChunkedCrossEntropy.apply(states, weight, bias, labels)
    with torch.autocast(states.device.type, enabled=False):
        return sampled_cross_entropy(states.float(), weight, bias, labels, negatives)


def sampled_cross_entropy(states: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, negatives: Negatives) -> Tensor:
    """Sampled softmax: the sum over all items is estimated by that of exp(score) / probability over the sample. The
    target stands for itself, in the sample or not, so the estimate is unbiased (Bengio & Senecal, 2008), and its own
    score needs no "log-q" correction (Khrylchenko et al., RecSys 2025, section 3)."""
    items, log_probabilities, sizes, targets = negatives
    sampled = F.embedding(items, weight)  # all at once: a look-up costs a gradient as large as `weight`
    target = (states * F.embedding(labels, weight)).sum(1) + bias[labels]
    by_item, by_target = (items, sampled, bias[items] - log_probabilities), (states, labels)
    groups = zip(*(each.split(sizes) for each in by_item), *(each.split(targets) for each in by_target), strict=True)
    others = [
        torch.addmm(offset, part, rows.T).masked_fill(sample == label[:, None], -torch.inf).logsumexp(1)
        for sample, rows, offset, part, label in groups
    ]
    return (torch.logaddexp(target, torch.cat(others)) - target).mean()


def logit_chunk_rows(device: torch.device, item_count: int) -> int:
    """For how many targets the scores of all items are in memory at the same time."""
    return CACHED_ROWS if device.type == "cpu" else max(CACHED_ROWS, DEVICE_SCORES // item_count)


class ChunkedCrossEntropy(torch.autograd.Function):
    """`F.cross_entropy(F.linear(states, weight, bias), labels)`, and the gradients with it, a few rows at a time.

    The whole (N, V) matrix of scores is never in memory. With p the softmax of a row's scores,
    d loss / d scores = (p - onehot(label)) / N; the one-hot part is added at the end. Autocast does not reach in here:
    scores and sums stay float32. (`training.devices.matmul_precision` makes the products themselves bfloat16.)
    """

    @staticmethod
    def forward(  # type: ignore[override]
        context: Any, states: Tensor, weight: Tensor, bias: Tensor, labels: Tensor
    ) -> Tensor:
        """`states` (N, D), `weight` (V, D), `bias` (V,), `labels` (N,) int64 below V: the mean loss in nats."""
        with torch.autocast(states.device.type, enabled=False):
            loss, gradients = loss_and_gradients(states.to(weight.dtype), weight, bias, labels)
        context.save_for_backward(*gradients)
        return loss

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return *(gradient * part for part in context.saved_tensors), None


def loss_and_gradients(states: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The loss, and its gradients by states, weight and bias."""
    count = len(states)
    chunk = logit_chunk_rows(states.device, len(weight))
    scores = states.new_empty(min(chunk, count), len(weight))
    total = states.new_zeros(())
    state_grad, weight_grad, bias_grad = torch.empty_like(states), torch.zeros_like(weight), torch.zeros_like(bias)
    for start in range(0, count, chunk):
        rows = slice(start, start + chunk)
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
