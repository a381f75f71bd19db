"""Take one ingredient after the other out of the recipe of a preset: what does it cost on validation data?

    BERTREC_DATA=FOLDER python benchmarks/ablations.py ml-1m --epochs 3

Every run has the same number of epochs, with a learning rate that comes down to zero at their end, and seed 0. Writes
results/ablations/PRESET-NAME.json; a run that is there already, with the same settings, is not repeated.
"""

import argparse
import json
from dataclasses import asdict, replace
from typing import NamedTuple

import torch
from record_run import write_result
from torch import nn

from bertrec_utils.dataset import Dataset, load_dataset
from bertrec_utils.files import PROJECT
from bertrec_utils.model import BERT4Rec
from bertrec_utils.presets import PRESETS, Preset, get_preset
from bertrec_utils.training import fit, new_model


class LearnedPositions(BERT4Rec):
    """The paper's positions: a learned vector each, added to the film's (section 3.4).

    They count back from the newest place: that of the question in the test, that of the newest film in training.
    """

    def __init__(self, item_count, preset):
        super().__init__(item_count, preset)
        self.positions = nn.Embedding(preset.history_length + 1, preset.width)
        nn.init.trunc_normal_(self.positions.weight, std=0.02, a=-0.04, b=0.04)

    def start(self, questions):
        states, layout = super().start(questions)
        history, asked = questions.history, questions.places
        places = torch.cat([torch.arange(history.shape[1], device=asked.device).expand_as(history), asked], 1)
        states = states + self.positions(places.amax(1, keepdim=True) - places)
        return states, layout._replace(rotation=torch.ones_like(layout.rotation))  # no rotation


CLOZE_ONLY = {"next_only": 0.0, "cloze_only": 1.0}


class Ablation(NamedTuple):
    title: str  # what the table calls it
    settings: dict  # other settings than the preset's
    kind: type[BERT4Rec] = BERT4Rec


ABLATIONS = {
    "full": Ablation("the whole recipe", {}),
    "cloze-only": Ablation("no next-film questions", CLOZE_ONLY),
    "classic": Ablation(
        "no next-film questions, random start, learned positions", CLOZE_ONLY | {"warm_start": False}, LearnedPositions
    ),
    "random-start": Ablation("random start", {"warm_start": False}),
    "learned-positions": Ablation("learned positions", {}, LearnedPositions),
    "next-only": Ablation("no cloze questions", {"mask_ratio": 0.0}),
    "width-64": Ablation("half the width and heads", {"width": 64, "heads": 2}),
    "batch-128": Ablation("batches four times as large", {"batch_size": 128}),
}


def run(ablation: Ablation, preset: Preset, dataset: Dataset) -> list[dict]:
    """One row per epoch; `preset` holds the ablation's settings."""
    return fit(new_model(dataset, preset, kind=ablation.kind), dataset).to_dict("records")


def is_recorded(name: str, preset: Preset) -> bool:
    path = PROJECT / "results" / f"{name}.json"
    return path.exists() and Preset(**json.loads(path.read_text())["preset"]) == preset


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--epochs", type=int, required=True)
    arguments = parser.parse_args()
    whole = replace(get_preset(arguments.preset), epochs=arguments.epochs, patience=arguments.epochs)
    dataset = load_dataset(whole)
    for name, ablation in ABLATIONS.items():
        preset, file = replace(whole, **ablation.settings), f"ablations/{whole.name}-{name}"
        if is_recorded(file, preset):
            continue
        history = run(ablation, preset, dataset)
        command = f"python benchmarks/ablations.py {whole.name} --epochs {whole.epochs}"
        write_result(file, command, title=ablation.title, preset=asdict(preset), seed=0, history=history)
        best = max(row["ndcg@10"] for row in history)
        print(f"{name}: validation NDCG@10 {best:.4f}, {history[-1]['seconds'] / 60:.1f} min", flush=True)


if __name__ == "__main__":
    main()
