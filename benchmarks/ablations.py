"""Take one ingredient after the other out of the recipe of a preset: what does it cost on validation data?

    BERTREC_DATA=FOLDER python benchmarks/ablations.py ml-1m --epochs 3

Every run has the same number of epochs, with a learning rate that comes down to zero at their end, and seed 0. Writes
results/ablations/PRESET-NAME.json; a run that is there already, with the same settings, is not repeated.
"""

import argparse
import contextlib
import json
from dataclasses import asdict, replace
from typing import NamedTuple
from unittest import mock

from record_run import write_result
from torch import nn

from bertrec_utils import masking, training
from bertrec_utils.model import BERT4Rec
from bertrec_utils.presets import PRESETS, Preset, get_preset
from bertrec_utils.releases import PROJECT, load_movielens
from bertrec_utils.sequences import build_sequences, leave_one_out


class LearnedPositions(BERT4Rec):
    """The paper's positions: a learned vector each, added to the film's (section 3.4).

    They count back from the newest place: that of the question in the test, that of the newest film in training.
    """

    def __init__(self, config):
        super().__init__(config)
        self.positions = nn.Embedding(config.history_length + 1, config.width)
        nn.init.trunc_normal_(self.positions.weight, std=0.02, a=-0.04, b=0.04)
        for block in self.blocks:
            block.attention.speeds.zero_()  # no rotation

    def start(self, questions):
        states, places, visible = super().start(questions)
        return states + self.positions(places.amax(1, keepdim=True) - places), places, visible


CLOZE_ONLY = (masking, "draw_prefix", lambda lengths, random: lengths)
LEARNED_POSITIONS = (training, "BERT4Rec", LearnedPositions)


class Ablation(NamedTuple):
    title: str  # what the table calls it
    parts: tuple = ()  # (module, name, part): put `part` in the place of `module.name`
    warm: bool = True
    settings: tuple = ()  # (name, value): other settings than the preset's


ABLATIONS = {
    "full": Ablation("the whole recipe"),
    "cloze-only": Ablation("no next-film questions", parts=(CLOZE_ONLY,)),
    "classic": Ablation(
        "no next-film questions, random start, learned positions", parts=(CLOZE_ONLY, LEARNED_POSITIONS), warm=False
    ),
    "random-start": Ablation("random start", warm=False),
    "learned-positions": Ablation("learned positions", parts=(LEARNED_POSITIONS,)),
    "next-only": Ablation("no cloze questions", settings=(("mask_ratio", 0.0),)),
    "width-64": Ablation("half the width and heads", settings=(("width", 64), ("heads", 2))),
    "batch-128": Ablation("batches four times as large", settings=(("batch_size", 128),)),
}


@contextlib.contextmanager
def replaced(parts):
    with contextlib.ExitStack() as stack:
        for module, name, part in parts:
            stack.enter_context(mock.patch.object(module, name, part))
        yield


def run(name: str, preset: Preset, split, vocabulary) -> list[dict]:
    """A row an epoch."""
    with replaced(ABLATIONS[name].parts):
        model = training.new_model(split, vocabulary, preset, warm=ABLATIONS[name].warm)
        return training.fit(model, split, vocabulary, preset).to_dict("records")


def is_recorded(name: str, preset: Preset) -> bool:
    path = PROJECT / "results" / f"{name}.json"
    return path.exists() and json.loads(path.read_text())["preset"] == asdict(preset)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--epochs", type=int, required=True)
    arguments = parser.parse_args()
    whole = replace(get_preset(arguments.preset), epochs=arguments.epochs, patience=arguments.epochs)
    vocabulary, sequences = build_sequences(load_movielens(whole.release).ratings, whole.min_item_ratings)
    split = leave_one_out(sequences)
    for name, ablation in ABLATIONS.items():
        preset, file = replace(whole, **dict(ablation.settings)), f"ablations/{whole.name}-{name}"
        if is_recorded(file, preset):
            continue
        history = run(name, preset, split, vocabulary)
        command = f"python benchmarks/ablations.py {whole.name} --epochs {whole.epochs}"
        write_result(file, command, title=ablation.title, preset=asdict(preset), seed=0, history=history)
        best = max(row["ndcg@10"] for row in history)
        print(f"{name}: validation NDCG@10 {best:.4f}, {history[-1]['seconds'] / 60:.1f} min", flush=True)


if __name__ == "__main__":
    main()
