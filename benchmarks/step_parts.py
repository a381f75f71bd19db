"""Time the parts of a training step that are our own because of the CPU, beside PyTorch's, as ratios.

    OMP_NUM_THREADS=1 python benchmarks/step_parts.py

Dropout, and the loss over catalogues of several sizes: ours, `F.cross_entropy` of all scores at once, and, where
PyTorch has it (2.13), `F.linear_cross_entropy` in chunks of its own choice and of as many rows as ours. The sides take
turns; medians of seven rounds after a warm-up. Writes results/step-parts.json, milliseconds of forward and backward
pass together.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from recording import write_result

from bertrec_utils.model.losses import CACHED_ROWS, ChunkedCrossEntropy
from bertrec_utils.model.modern import Dropout

WIDTH, STATES, ROUNDS = 128, 6_300, 7
TARGETS = {3_416: 2_800, 5_003: 1_900, 57_415: 512}  # items of ML-1M, the bundled data, ML-25M -> of a batch or less


def losses(items: int, targets: int) -> dict[str, Callable[[], torch.Tensor]]:
    states, weight = torch.randn(targets, WIDTH), torch.randn(items, WIDTH) * 0.1
    states, weight, bias = (value.requires_grad_() for value in (states, weight, torch.zeros(items)))
    labels = torch.randint(0, items, (targets,))
    sides = {
        "bertrec_utils": lambda: ChunkedCrossEntropy.apply(states, weight, bias, labels),
        "cross_entropy": lambda: F.cross_entropy(F.linear(states, weight, bias), labels),
    }
    if hasattr(torch.nn, "LinearCrossEntropyOptions"):
        for name, options in {"": {}, f", {CACHED_ROWS} rows": {"batch_chunk_size": CACHED_ROWS}}.items():
            chunked = torch.nn.LinearCrossEntropyOptions(**options)
            sides[f"linear_cross_entropy{name}"] = partial(
                F.linear_cross_entropy, states, weight, labels, linear_bias=bias, options=chunked
            )
    return sides


def dropouts() -> dict[str, Callable[[], torch.Tensor]]:
    states = torch.randn(STATES, WIDTH, requires_grad=True)
    ours, theirs = Dropout(0.2), torch.nn.Dropout(0.2)
    return {"bertrec_utils": lambda: ours(states).sum(), "torch": lambda: theirs(states).sum()}


def milliseconds(side: Callable[[], torch.Tensor]) -> float:
    started = time.perf_counter()
    side().backward()
    return 1000 * (time.perf_counter() - started)


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    torch.manual_seed(0)
    parts = {
        f"loss, {items:,} items, {targets:,} targets": losses(items, targets) for items, targets in TARGETS.items()
    }
    found = {}
    for name, sides in (parts | {f"dropout, {STATES:,} states": dropouts()}).items():
        rounds = [{side: milliseconds(work) for side, work in sides.items()} for _ in range(ROUNDS + 1)][1:]
        found[name] = {side: statistics.median(row[side] for row in rounds) for side in sides}
        ours = found[name]["bertrec_utils"]
        shown = ", ".join(f"{side} {value:.1f} ms ({value / ours:.2f} x)" for side, value in found[name].items())
        print(f"{name}: {shown}")
    write_result("step-parts", "OMP_NUM_THREADS=1 python benchmarks/step_parts.py", milliseconds=found)


if __name__ == "__main__":
    main()
