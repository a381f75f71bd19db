"""The same small search for every recipe: which learning rate, and how many epochs, is best on validation data?

    python benchmarks/tune_recipes.py small --recipes ours sasrec-warm

Seed 0; a run ends when a quarter of its epochs have brought nothing. Writes results/ablations/tune-PRESET-RECIPE.json
after each run, and does not repeat a run that is there.
"""

import argparse
import itertools
import json
from dataclasses import replace

from record_run import write_result

from bertrec_utils.data.dataset import load_dataset
from bertrec_utils.common import PROJECT
from bertrec_utils.settings import PRESETS, RECIPES, get_preset
from bertrec_utils.training.trainer import fit, new_model

LEARNING_RATES = (1e-3, 2e-3)
EPOCHS = {  # a random start takes longer, and the cloze asks fewer questions a pass
    "ours": (8, 16),
    "sasrec-warm": (8, 16),
    "sasrec": (16, 32),
    "bert4rec-paper-warm": (40, 80),
    "bert4rec-paper": (40, 80),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(EPOCHS), metavar="NAME")
    arguments = parser.parse_args()
    dataset = load_dataset(get_preset(arguments.preset))
    for recipe in arguments.recipes:
        name = f"ablations/tune-{arguments.preset}-{recipe}"
        path = PROJECT / "results" / f"{name}.json"
        tried = json.loads(path.read_text())["tried"] if path.exists() else []
        known = [run["settings"] for run in tried]
        for rate, epochs in itertools.product(LEARNING_RATES, EPOCHS[recipe]):
            settings = {"learning_rate": rate, "epochs": epochs}
            if settings in known:
                continue
            preset = replace(get_preset(arguments.preset, recipe), **settings, patience=epochs // 4)
            curve = fit(new_model(dataset, preset), dataset)["ndcg@10"].tolist()
            tried.append({"settings": settings, "best": max(curve), "ndcg@10": curve})
            print(recipe, settings, f"validation NDCG@10 {max(curve):.4f}", flush=True)
            command = f"python benchmarks/tune_recipes.py {arguments.preset} --recipes {recipe}"
            write_result(name, command, recipe=recipe, seed=0, tried=tried)


if __name__ == "__main__":
    main()
