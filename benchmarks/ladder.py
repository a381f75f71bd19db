"""From the notebook this project started from to ours: one mistake repaired on each rung, on ML-1M.

    BERTREC_DATA=FOLDER python benchmarks/ladder.py

Seed 0. Every rung is measured on the test set under the three protocols, and under that of the notebook. Nothing is
chosen by it. Writes results/ladder.json after each rung; a rung that is there with the same settings is not repeated.
"""

import argparse
import json
from dataclasses import asdict, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from record_run import write_result

from bertrec_utils.data.dataset import Dataset, load_dataset
from bertrec_utils.evaluation.ranking import evaluate
from bertrec_utils.common import PROJECT
from bertrec_utils.model.modern import ModernTransformer, evaluating
from bertrec_utils.model.bert4rec import BERT4Rec
from bertrec_utils.settings import PRESETS, Settings
from bertrec_utils.model.masking import pad_left
from bertrec_utils.training.trainer import Trainer
from bertrec_utils.data.sequences import Holdout, build_sequences, leave_one_out
from bertrec_utils.training.trainer import new_model

OVERWRITES, SEES_PADDING, LARGE_START = "overwrites the newest film", "visible_until padding", "starts at N(0, 1)"


class Mistaken(BERT4Rec):
    """The paper's network without the projection of equation 7, as the notebook has it, and with some `mistakes`."""

    def __init__(self, item_count: int, preset: Settings, mistakes: tuple[str, ...] = ()):
        super().__init__(item_count, preset)
        self.mistakes = mistakes
        if LARGE_START in mistakes:  # every part as PyTorch makes it
            for module in self.modules():
                reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
                if reset:
                    reset()

    def states(self, tokens):
        if SEES_PADDING not in self.mistakes:
            return super().states(tokens)
        places = torch.arange(-tokens.shape[1], 0, device=tokens.device) + self.preset.max_length
        states = self.dropout(self.item_embedding(tokens) + self.position_embedding(places))
        for block in self.blocks:
            states = block(states, padding=torch.zeros_like(tokens, dtype=torch.bool))
        return states

    def logits(self, states):
        return F.linear(states, self.item_embedding.weight[1:-1], self.item_bias)

    @torch.inference_mode()
    def score(self, histories):
        if OVERWRITES not in self.mistakes:
            return super().score(histories)
        starts = np.maximum(histories.lengths - self.preset.max_length, 0)
        tokens = pad_left(histories, np.arange(len(histories)), starts, histories.lengths)
        tokens[:, -1] = self.mask_token
        with evaluating(self):
            return self.logits(self.states(torch.from_numpy(tokens).to(self.device))[:, -1]).cpu().numpy()


def as_the_notebook(dataset: Dataset) -> Dataset:
    """Its own order and split: equal timestamps in the order in which films first appear in the file, and training on
    all but the test film."""
    ratings = dataset.log.ratings
    first_seen = pd.factorize(ratings.item)[0]
    ratings = ratings.assign(first_seen=first_seen).sort_values(["user", "timestamp", "first_seen"])
    vocabulary, sequences = build_sequences(ratings, min_item_ratings=1, tie_seed=None)
    split = leave_one_out(sequences)
    return Dataset(vocabulary, sequences, dataset.log, replace(split, train=split.test.histories))


class Rung(NamedTuple):
    title: str
    settings: dict  # that change on this rung
    mistakes: tuple[str, ...] = ()
    constant_rate: bool = False  # Adam at one learning rate; else the trainer of this project
    own_split: bool = False  # the notebook's, see `as_the_notebook`
    ours: bool = False  # our blocks: rotary places, the norm first, a [MASK] that nobody looks at


START = {
    **{"paper": True, "max_length": 50, "width": 64, "layers": 2, "heads": 2, "near": 0, "dropout": 0.2},
    **{"warm_start": False, "p_causal": 0.0, "p_cloze": 1.0, "mask_ratio": 0.15, "min_item_ratings": 1},
    **{"batch_size": 128, "learning_rate": 1e-3, "epochs": 20, "patience": 1000},
}
LADDER = (
    Rung("the starting notebook", START, (OVERWRITES, SEES_PADDING, LARGE_START), constant_rate=True, own_split=True),
    Rung("ties in file order, a film for validation", {}, (OVERWRITES, SEES_PADDING, LARGE_START), constant_rate=True),
    Rung("[MASK] after the newest film, not over it", {}, (SEES_PADDING, LARGE_START), constant_rate=True),
    Rung("nobody looks at padding", {}, (LARGE_START,), constant_rate=True),
    Rung("starts at N(0, .02)", {}, constant_rate=True),
    Rung("30 epochs, not 20", {"epochs": 30}, constant_rate=True),
    Rung("the newest film alone hidden, now and then", {"p_mask_last": 0.1}, constant_rate=True),
    Rung("histories of 200 films", {"max_length": 200}, constant_rate=True),
    Rung("warm start", {"warm_start": True}, constant_rate=True),
    Rung(
        "rotary places, norm first, [MASK] aside", {"paper": False, "p_mask_last": 0.0}, constant_rate=True, ours=True
    ),
    Rung("next-film questions", {"p_causal": 0.5, "p_cloze": 0.0}, constant_rate=True, ours=True),
    Rung("batches of 32", {"batch_size": 32, "epochs": 18}, constant_rate=True, ours=True),
    Rung("the learning rate climbs, then falls", {}, ours=True),
)


def metrics_of_the_notebook(model, holdout: Holdout, seed: int = 0) -> dict[str, float]:
    """Hit@10 and NDCG@10 against 100 even draws from all films, the target and those of the history included."""
    random, ranks = np.random.default_rng(seed), []
    for rows in np.array_split(np.arange(len(holdout.targets)), len(holdout.targets) // 256 + 1):
        scores = model.score(holdout.histories.rows(rows))
        targets = np.take_along_axis(scores, holdout.targets[rows, None] - 1, 1)
        drawn = random.integers(0, scores.shape[1], (len(rows), 100))
        ranks.append(1 + (np.take_along_axis(scores, drawn, 1) > targets).sum(1))
    ranks = np.concatenate(ranks)
    hit = ranks <= 10
    return {"hit@10": hit.mean(), "ndcg@10": (hit / np.log2(ranks + 1)).mean()}


def train(model, dataset: Dataset, constant_rate: bool) -> list[dict]:
    """One row per epoch; the model is left with the weights of the last epoch, for the notebook kept no best one."""
    run = Trainer(model, dataset, seed=0)
    if constant_rate:
        run.optimizer = torch.optim.Adam(model.parameters(), lr=model.preset.learning_rate)
        run.schedule = torch.optim.lr_scheduler.LambdaLR(run.optimizer, lambda step: 1)
    while not run.is_over():
        run.history.append({"epoch": len(run.history) + 1, "loss": run.train_epoch()} | run.validate())
    return run.history


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    path = PROJECT / "results" / "ladder.json"
    known = json.loads(path.read_text())["rungs"] if path.exists() else []
    settings, rungs = {}, []
    for rung in LADDER:
        settings |= rung.settings
        preset = replace(PRESETS["ml-1m"], **settings)
        how = {"mistakes": list(rung.mistakes), "constant_rate": rung.constant_rate, "own_split": rung.own_split}
        described = {"title": rung.title, "preset": asdict(preset)} | how
        found = [each for each in known if described.items() <= each.items()]
        if found:
            rungs.append(found[0])
            continue
        dataset = load_dataset(preset)
        if rung.own_split:
            dataset = as_the_notebook(dataset)
        model = new_model(
            dataset, preset, build=ModernTransformer if rung.ours else partial(Mistaken, mistakes=rung.mistakes)
        )
        history = train(model, dataset, rung.constant_rate)
        test = evaluate(model, dataset.split.test) | {"notebook": metrics_of_the_notebook(model, dataset.split.test)}
        rungs.append(described | {"history": history, "test": test})
        write_result("ladder", "python benchmarks/ladder.py", seed=0, rungs=rungs)
        shown = ", ".join(f"{name} {row['hit@10']:.4f} / {row['ndcg@10']:.4f}" for name, row in test.items())
        print(f"{rung.title}: loss {history[0]['loss']:.2f} to {history[-1]['loss']:.2f}; {shown}", flush=True)


if __name__ == "__main__":
    main()
