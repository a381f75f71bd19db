"""Training speed and memory of this package, RecTools and RecBole at equal settings, as ratios.

    BERTREC_DATA=FOLDER python benchmarks/train_speed.py

On ML-1M, each library in a process of its own, in turn, in three rounds; medians. It takes ten minutes, after the first
run has installed RecTools and RecBole from PyPI into benchmarks/environments. Writes results/train-speed.json.

A sequence is a row of a batch, up to 200 films: any window of a user's (ours), a user's newest films (RecTools), one of
a user's prefixes (RecBole, which asks half of its batches for the last film only). Memory is the peak of the whole
process, reading and preparing the data included.
"""

import statistics
import time

import numpy as np
import peers
import torch
from record_run import write_result
from tqdm import tqdm

from bertrec_utils.data.dataset import load_dataset
from bertrec_utils.model.masking import MaskedBatch, training_batches
from bertrec_utils.data.sequences import PAD

ROUNDS, MINUTES = 3, 0.5


def step_operations(questions: MaskedBatch, item_count: int) -> int:
    """Multiplications and additions in the matrix products of a training step: twice as many backward as forward."""
    batch, length = questions.history.shape
    asked, width = questions.places.shape[1], peers.WIDTH
    forward = 0
    for layer in range(peers.LAYERS):
        queries = asked if layer == peers.LAYERS - 1 else length + asked
        keys_values = 4 * length * width**2
        per_query = (2 + 2 + 16) * width**2 + 4 * length * width  # query, projection, feed-forward; attention
        forward += batch * (keys_values + queries * per_query)
    return 3 * (forward + 2 * int((questions.labels != PAD).sum()) * width * item_count)


def operations_per_sequence() -> float:
    preset = peers.our_preset()
    dataset = load_dataset(preset)
    train, vocabulary = dataset.split.train, dataset.vocabulary
    batches = training_batches(train, vocabulary.mask_token, preset, np.random.default_rng(0))
    return sum(step_operations(batch, len(vocabulary)) for batch in batches) / len(train)


def matrix_rate(size: int = 4096) -> float:
    """Operations a second of a large float32 matrix product; the best of five."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)


def main():
    for library in peers.REQUIREMENTS:
        peers.python_of(library)
    lines = {library: [] for library in ("ours", *peers.REQUIREMENTS)}
    for _ in tqdm(range(ROUNDS), desc="rounds"):
        for library, rounds in lines.items():
            rounds += peers.run(library, MINUTES)
    table = {}
    for library, rounds in lines.items():
        rates = [line["sequences"] / line["seconds"] for line in rounds]
        table[library] = {
            "versions": peers.versions_of(library),
            "sequences_per_second": statistics.median(rates),
            "rounds": rates,
            "peak_mb": statistics.median(line["peak_mb"] for line in rounds),
        }
    ours, operations, rate = table["ours"], operations_per_sequence(), matrix_rate()
    print(f"\n{torch.get_num_threads()} threads, torch {torch.__version__}")
    for library, row in table.items():
        ratio = ours["sequences_per_second"] / row["sequences_per_second"]
        print(f"{library:9} {row['sequences_per_second']:7.1f} sequences/s (ours: {ratio:4.1f} x)", end="")
        print(f"   {row['peak_mb']:6.0f} MB ({row['peak_mb'] / ours['peak_mb']:.1f} x ours)")
    share = ours["sequences_per_second"] * operations / rate
    print(
        f"a large matrix product: {rate / 1e9:.0f} GFLOP/s; the products of our step, at its speed: {share:.0%} of it"
    )
    write_result(
        "train-speed",
        "python benchmarks/train_speed.py",
        settings={name.lower(): getattr(peers, name) for name in peers.SETTINGS},
        libraries=table,
        operations_per_sequence=operations,
        matrix_rate=rate,
        share_of_matrix_rate=share,
    )


if __name__ == "__main__":
    main()
