"""Time the two parts of a training step that are our own because of the CPU, beside PyTorch's, as ratios.

    python benchmarks/step_parts.py

Shapes are about those of a step of the `ml-1m` preset. The sides take turns; medians of nine rounds after a warm-up.
"""

import statistics
import time

import torch
import torch.nn.functional as F

from bertrec_utils.model.modern import Dropout
from bertrec_utils.model.losses import ChunkedCrossEntropy

ITEMS, WIDTH, QUESTIONS, PLACES = 3_416, 128, 2_800, 6_300


def cross_entropies():
    states, weight = torch.randn(QUESTIONS, WIDTH), torch.randn(ITEMS, WIDTH) * 0.1
    leaves = [value.requires_grad_() for value in (states, weight, torch.zeros(ITEMS))]
    labels = torch.randint(0, ITEMS, (QUESTIONS,))
    return (
        lambda: ChunkedCrossEntropy.apply(*leaves, labels).backward(),
        lambda: F.cross_entropy(F.linear(*leaves), labels).backward(),
    )


def dropouts():
    states = torch.randn(PLACES, WIDTH, requires_grad=True)
    ours, theirs = Dropout(0.2), torch.nn.Dropout(0.2)
    return lambda: ours(states).sum().backward(), lambda: theirs(states).sum().backward()


def milliseconds(work):
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


def main():
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for name, sides in (("cross-entropy", cross_entropies()), ("dropout", dropouts())):
        rounds = [[milliseconds(work) for work in sides] for _ in range(10)][1:]
        ours, theirs = (statistics.median(side) for side in zip(*rounds, strict=True))
        print(f"{name:14} ours {ours:6.1f} ms   PyTorch {theirs:6.1f} ms   {theirs / ours:.1f} x")


if __name__ == "__main__":
    main()
