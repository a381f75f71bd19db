"""Training speed and memory of this package, RecTools and RecBole, as ratios.

    BERTREC_DATA=FOLDER python benchmarks/train_speed.py

On ML-1M, each in a process of its own, in turn, three rounds of half a minute; medians. At EQUAL settings: `bert4rec`,
the same network, `modern-cloze`, the same task in another network, and BERT4Rec of RecTools and of RecBole. Beside them
`modern-both` at its own settings. All losses are cross-entropy over all items. Writes results/train-speed.json.

A sequence is a row of a batch, up to 200 films: any window of a user's (ours), a user's newest films (RecTools), one of
a user's prefixes (RecBole, half of whose batches ask for the last film only). Memory is the peak of the process.
"""

import argparse
import statistics
import sys
import timeit
from collections.abc import Callable

import torch
from peers import REQUIREMENTS, run
from recording import write_result
from torch.utils import flop_counter
from tqdm import trange

from bertrec_utils.data.dataset import load_dataset
from bertrec_utils.settings import PRESETS, get_preset
from bertrec_utils.training.trainer import Trainer, new_model

ROUNDS = 3
EQUAL = {"width": 64, "layers": 2, "heads": 2, "max_length": 200, "batch_size": 128, "dropout": 0.2, "mask_ratio": 0.2}
OURS = dict.fromkeys(("bert4rec", "modern-cloze"), EQUAL | {"precision": "float32"}) | {"modern-both": {}}
NAMES = {  # of EQUAL's settings in the libraries, whose other defaults are as ours
    "rectools": "n_factors n_blocks n_heads session_max_len batch_size dropout_rate mask_prob",
    "recbole": "hidden_size n_layers n_heads MAX_ITEM_LIST_LENGTH train_batch_size hidden_dropout_prob mask_ratio",
}
aten = torch.ops.aten
UNCOUNTED = {  # by FlopCounterMode, of the products on a CPU; called with the shapes of what goes in
    aten._scaled_dot_product_flash_attention_for_cpu: lambda *shapes, **_: flop_counter.sdpa_flop_count(*shapes[:3]),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda *shapes, **_: flop_counter.sdpa_backward_flop_count(*shapes[:4])
    ),
    aten.addmm_: lambda *shapes, **_: flop_counter.addmm_flop(*shapes),
}


def operations(work: Callable[[], object]) -> int:
    """Multiplications and additions of the matrix products in `work()`."""
    with flop_counter.FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
        work()
    return counter.get_total_flops()


def matrix_rate(size: int = 2048) -> float:
    """Operations a second of a large float32 matrix product; the best of five."""
    left, right = torch.randn(2, size, size)
    return 2 * size**3 / min(timeit.repeat(lambda: left @ right, number=1, repeat=5))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=PRESETS, nargs="?", default="ml-1m")
    parser.add_argument("--seconds", type=float, default=30)
    arguments = parser.parse_args()
    ours = {name: get_preset(arguments.preset, name, "random").change(**changes) for name, changes in OURS.items()}
    dataset = load_dataset(get_preset(arguments.preset).data)
    jobs = {name: ("bertrec_utils", name, dataset, settings.flat()) for name, settings in ours.items()}
    for library, names in NAMES.items():
        jobs[library] = library, "BERT4Rec", dataset, dict(zip(names.split(), EQUAL.values(), strict=True))
    rounds = [{name: run(*job, seconds=arguments.seconds) for name, job in jobs.items()} for _ in trange(ROUNDS)]
    rate, table = matrix_rate(), {}
    for name, job in jobs.items():
        rates, peaks = ([found[name][key] for found in rounds] for key in ("sequences_per_second", "peak_mb"))
        speed, peak = statistics.median(rates), statistics.median(peaks)
        table[name] = {"settings": job[-1], "sequences_per_second": speed, "rounds": rates, "peak_mb": peak}
        if name in ours:
            trainer = Trainer(new_model(dataset, ours[name]), dataset, ours[name], verbose=False)
            needed = operations(trainer.train_epoch) / len(dataset.split.train)
            table[name] |= {"operations_per_sequence": needed, "share_of_matrix_rate": needed * speed / rate}
            shown = f"{needed * speed / rate:.0%} of the speed of a large matrix product"
        else:
            table[name]["ours"] = {each: table[each]["sequences_per_second"] / speed for each in ours}
            shown = "ours: " + ", ".join(f"{each} {ratio:.1f} x" for each, ratio in table[name]["ours"].items())
        print(f"{name:17} {speed:7.1f} sequences/s, {peak:6.0f} MB; {shown}")
    command = " ".join(["python benchmarks/train_speed.py", *sys.argv[1:]])
    write_result("train-speed", command, requirements=REQUIREMENTS, models=table, matrix_rate=rate)


if __name__ == "__main__":
    main()
