"""Take one ingredient after the other out of the recipe of a preset: what does it cost on validation data?

    python benchmarks/ablations.py small

Every run has the preset's whole length and seed 0, and is measured alone and mixed with baseline. Writes
results/ablations/PRESET-NAME.json; a run that is there already, with the same settings, is not repeated.
"""

import argparse
import json
from dataclasses import asdict, replace
from typing import NamedTuple

import torch
from record_run import write_result
from torch import nn

from bertrec_utils.data.dataset import Dataset, load_dataset
from bertrec_utils.common import PROJECT
from bertrec_utils.evaluation.mixture import linear_baseline, ndcg_by_weight
from bertrec_utils.model.modern import ModernTransformer
from bertrec_utils.settings import PRESETS, Settings, get_preset
from bertrec_utils.training.trainer import fit, new_model


class LearnedPositions(ModernTransformer):
    """The paper's positions: a learned vector each, added to the film's (section 3.4).

    They count back from the newest place: that of the question in the test, that of the newest film in training.
    """

    def __init__(self, item_count, preset):
        super().__init__(item_count, preset)
        self.positions = nn.Embedding(preset.max_length + 1, preset.width)
        nn.init.trunc_normal_(self.positions.weight, std=0.02, a=-0.04, b=0.04)

    def start(self, questions):
        states, layout = super().start(questions)
        history, asked = questions.history, questions.places
        places = torch.cat([torch.arange(history.shape[1], device=asked.device).expand_as(history), asked], 1)
        states = states + self.positions(places.amax(1, keepdim=True) - places)
        return states, layout._replace(rotation=torch.ones_like(layout.rotation))  # no rotation


CLOZE_ONLY = {"p_causal": 0.0, "p_cloze": 1.0}


class Ablation(NamedTuple):
    title: str  # what the table calls it
    settings: dict  # other settings than the preset's
    kind: type[ModernTransformer] = ModernTransformer


ABLATIONS = {
    "full": Ablation("the whole recipe", {}),
    "no-near": Ablation("no near films", {"near": 0}),
    "random-start": Ablation("random start", {"warm_start": False}),
    "next-only": Ablation("no cloze questions", {"mask_ratio": 0.0}),
    "cloze-only": Ablation("no next-film questions", CLOZE_ONLY),
    "learned-positions": Ablation("learned positions", {}, LearnedPositions),
    "classic": Ablation(
        "no next-film questions, no near films, random start, learned positions",
        CLOZE_ONLY | {"near": 0, "warm_start": False},
        LearnedPositions,
    ),
}


def run(ablation: Ablation, preset: Settings, dataset: Dataset) -> tuple[list[dict], float]:
    """One row per epoch, and the validation NDCG@10 of the mixture; `preset` holds the settings of the ablation."""
    model = new_model(dataset, preset, build=ablation.kind)
    history = fit(model, dataset).to_dict("records")
    baseline = linear_baseline(dataset.split.train, model.item_count)
    return history, max(ndcg_by_weight(model, baseline, dataset.split.validation).values())


def is_recorded(name: str, preset: Settings) -> bool:
    path = PROJECT / "results" / f"{name}.json"
    return path.exists() and Settings(**json.loads(path.read_text())["preset"]) == preset


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=PRESETS)
    whole = get_preset(parser.parse_args().preset)
    dataset = load_dataset(whole)
    for name, ablation in ABLATIONS.items():
        preset, file = replace(whole, **ablation.settings), f"ablations/{whole.name}-{name}"
        if is_recorded(file, preset):
            continue
        history, mixed = run(ablation, preset, dataset)
        table = {
            "title": ablation.title,
            "preset": asdict(preset),
            "seed": 0,
            "history": history,
            "with_linear": mixed,
        }
        write_result(file, f"python benchmarks/ablations.py {whole.name}", **table)
        best = max(row["ndcg@10"] for row in history)
        minutes = history[-1]["seconds"] / 60
        print(f"{name}: validation NDCG@10 {best:.4f}, with baseline {mixed:.4f}; {minutes:.1f} min", flush=True)


if __name__ == "__main__":
    main()
