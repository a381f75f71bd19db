"""Take one ingredient after the other out of the recipe of a preset: what does it cost on validation data?

    BERTREC_DATA=FOLDER python benchmarks/ablations.py ml-1m --epochs 12

Every run has the same number of epochs, with a learning rate that comes down to zero at their end, and seed 0. Writes
results/ablations/PRESET-NAME.json; a run that is there already is not repeated.
"""

import argparse
import contextlib
import datetime
import json
from dataclasses import asdict, replace
from unittest import mock

import numpy as np
from record_run import machine
from torch import nn

from bertrec_utils import masking, training
from bertrec_utils.model import BERT4Rec
from bertrec_utils.presets import PRESETS, get_preset
from bertrec_utils.releases import PROJECT, load_movielens
from bertrec_utils.sequences import build_sequences, leave_one_out
from bertrec_utils.training import replace_file


class LearnedPositions(BERT4Rec):
    """The paper's positions: a learned vector each, added to the film's (section 3.4). They count from the newest."""

    def __init__(self, config):
        super().__init__(config)
        self.positions = nn.Embedding(config.history_length + 1, config.width)
        nn.init.trunc_normal_(self.positions.weight, std=0.02, a=-0.04, b=0.04)
        for block in self.blocks:
            block.attention.speeds.zero_()  # no rotation

    def start(self, questions):
        states, places, visible = super().start(questions)
        return states + self.positions(questions.history.shape[1] - places), places, visible


def prefix_is_everything(lengths, random):
    return lengths


def prefix_is_one_film(lengths, random):
    return np.ones_like(lengths)


RANDOM_START = (training, "warm_start", lambda *arguments: None)
ONLY_CLOZE = (masking, "draw_prefix", lambda lengths, random: lengths)
ONLY_NEXT = (masking, "draw_prefix", lambda lengths, random: np.ones_like(lengths))
LEARNED = (training, "BERT4Rec", LearnedPositions)

# name -> what the table calls it, settings to change, parts to put in place of others (module, attribute, part)
ABLATIONS = {
    "full": ("the whole recipe", {}, []),
    "cloze-only": ("no next-film questions", {}, [ONLY_CLOZE]),
    "classic": (
        "all three: no next-film questions, random start, learned positions",
        {},
        [ONLY_CLOZE, RANDOM_START, LEARNED],
    ),
    "random-start": ("random instead of warm start", {}, [RANDOM_START]),
    "learned-positions": ("learned instead of rotary positions", {}, [LEARNED]),
    "next-only": ("no cloze questions", {"mask_ratio": 0}, [ONLY_NEXT]),
    "batch-128": ("128 histories a batch instead of 32", {"batch_size": 128}, []),
}


@contextlib.contextmanager
def changed(parts):
    """The package with `parts` in place of its own."""
    with contextlib.ExitStack() as stack:
        for module, attribute, part in parts:
            stack.enter_context(mock.patch.object(module, attribute, part))
        yield


def run(preset, name: str, split, vocabulary) -> dict:
    title, settings, parts = ABLATIONS[name]
    preset = replace(preset, **settings)
    with changed(parts):
        model = training.new_model(split, vocabulary, preset)
        history = training.fit(model, split, vocabulary, preset)
    return {
        "command": f"python benchmarks/ablations.py {preset.name} --epochs {preset.epochs}",
        "date": datetime.date.today().isoformat(),
        "title": title,
        "preset": asdict(preset),
        "seed": 0,
        "machine": machine(),
        "history": history.to_dict("records"),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--epochs", type=int, required=True)
    arguments = parser.parse_args()
    preset = replace(get_preset(arguments.preset), epochs=arguments.epochs, patience=arguments.epochs)
    vocabulary, sequences = build_sequences(load_movielens(preset.release).ratings, preset.min_item_ratings)
    split = leave_one_out(sequences)
    for name in ABLATIONS:
        path = PROJECT / "results" / "ablations" / f"{preset.name}-{name}.json"
        if path.exists():
            continue
        text = json.dumps(run(preset, name, split, vocabulary), indent=1) + "\n"
        replace_file(path, lambda partial, text=text: partial.write_text(text))
        history = json.loads(text)["history"]
        best = max(row["ndcg@10"] for row in history)
        print(f"{name}: validation NDCG@10 {best:.4f}, {history[-1]['seconds'] / 60:.1f} min")


if __name__ == "__main__":
    main()
