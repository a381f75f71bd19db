"""Train variants of a preset, one thing changed at a time, and record what each is worth: a study.

    python benchmarks/variants.py ablations small
    python benchmarks/variants.py tuning small --only modern-next
    python benchmarks/variants.py sampled-softmax ml-1m --seeds 0 1 2
    python benchmarks/variants.py cloze-to-next small --seeds 0 1
    python benchmarks/variants.py ladder ml-1m

`ablations` takes one ingredient out at a time; validation data, alone and mixed with the linear baseline.
`tuning` tries the same learning rates for all recipes, each with two numbers of epochs; validation data.
`sampled-softmax` compares losses over all items, over samples of them, and gBCE; validation and test.
`cloze-to-next` goes from the cloze to next-item targets, one difference at a time; validation data.
`ladder` repairs the notebook this project started from, one mistake on each rung; test, and nothing is chosen by it.

A run that is recorded with the same title, settings and seed is not repeated. `--name` keeps the runs of another
machine apart.
"""

import argparse
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from recording import model_name, path_of, read_result, settings_of_today, write_result
from torch import nn

from bertrec_utils.data.dataset import Dataset, build_sequences, leave_one_out, load_dataset
from bertrec_utils.data.sequences import Holdout
from bertrec_utils.evaluation.mixture import linear_baseline, ndcg_by_weight
from bertrec_utils.evaluation.ranking import Scorer, evaluate
from bertrec_utils.model.bert4rec import BERT4Rec, evaluating, init_weights
from bertrec_utils.model.masking import pad_left
from bertrec_utils.model.modern import ModernTransformer, build_network
from bertrec_utils.settings import DEFAULT_RECIPE, PRESETS, Settings, get_preset
from bertrec_utils.training.trainer import Trainer, new_model, train_to_the_end


class Variant(NamedTuple):
    title: str  # what tables call it
    changes: dict[str, Any]  # of the preset's settings
    recipe: str = DEFAULT_RECIPE
    start: str | None = None
    build: Callable = build_network
    prepare: Callable[[Trainer], None] | None = None  # done to the trainer before the first epoch
    split: Callable[[Dataset], Dataset] | None = None  # another split of the same data

    def settings(self, preset: str) -> Settings:
        return get_preset(preset, self.recipe, self.start).change(**self.changes)


class Study(NamedTuple):
    variants: dict[str, Variant]
    file: Callable[[str, str], str]  # in results/, from the names of preset and variant
    runs_key: str | None  # what that file calls its list of runs; None: it holds a single run
    measure: Callable[[Scorer, Dataset], dict]  # what is recorded beside settings and history
    best_epoch: bool = True  # measured are the weights of the best epoch, else those of the last


def run(study: Study, variant: Variant, settings: Settings, seed: int) -> dict:
    """What is recorded of one run: a row for each epoch, and what the study measures."""
    dataset = load_dataset(settings.data)
    if variant.split:
        dataset = variant.split(dataset)
    model = new_model(dataset, settings, seed, variant.build)
    trainer = Trainer(model, dataset, settings, seed)
    if variant.prepare:
        variant.prepare(trainer)
    train_to_the_end(trainer, None)
    if study.best_epoch:
        model.load_state_dict(trainer.best_weights)
    return {"history": trainer.history} | study.measure(model, dataset)


# Ablations


class LearnedPositions(ModernTransformer):
    """The paper's positions: a learned vector each, added to the item's (section 3.4).

    They count back from the newest position: that of the target in the test, that of the newest item in training.
    """

    def __init__(self, item_count, settings):
        super().__init__(item_count, settings)
        self.positions = nn.Embedding(settings.max_length + 1, settings.width)
        nn.init.trunc_normal_(self.positions.weight, std=0.02, a=-0.04, b=0.04)

    def embed(self, batch):
        states, layout = super().embed(batch)
        columns = torch.arange(batch.history.shape[1], device=states.device).expand_as(batch.history)
        positions = torch.cat([columns, batch.target_positions], 1)
        states = states + self.positions(positions.amax(1, keepdim=True) - positions)
        return states, layout._replace(rotation=torch.ones_like(layout.rotation))  # no rotation


def with_linear(model: Scorer, dataset: Dataset) -> dict:
    """The validation NDCG@10 of the best mixture."""
    baseline = linear_baseline(dataset.split.train, len(dataset.vocabulary))
    return {"with_linear": max(ndcg_by_weight(model, baseline, dataset.split.validation).values())}


CLOZE = {"p_causal": 0.0, "p_cloze": 1.0}
ABLATIONS = {
    "full": Variant("the whole recipe", {}),
    "no-conv": Variant("no causal convolution", {"conv_size": 0}),
    "random-start": Variant("random start", {"start": "random"}),
    "next-only": Variant("no cloze targets", {"mask_ratio": 0.0}),
    "cloze-only": Variant("no next-item targets", CLOZE),
    "learned-positions": Variant("learned positions", {}, build=LearnedPositions),
    "classic": Variant(
        "no next-item targets, no causal convolution, random start, learned positions",
        CLOZE | {"conv_size": 0, "start": "random"},
        build=LearnedPositions,
    ),
}


# Tuning

EPOCHS = {  # a random start takes longer, and so does the cloze, which has fewer targets in a pass
    ("modern-both", "counts"): (8, 16),
    ("modern-next", "counts"): (8, 16),
    ("modern-next", "random"): (16, 32),
    ("modern-cloze", "counts"): (16, 32),
    ("bert4rec", "counts"): (40, 80),
    ("bert4rec", "random"): (40, 80),
}
TUNING = [
    Variant(
        f"{model_name(recipe, start)}, learning rate {rate}, {epochs} epochs",
        {"learning_rate": rate, "epochs": epochs, "patience": epochs // 4},
        recipe,
        start,
    )
    for (recipe, start), numbers in EPOCHS.items()
    for rate in (1e-3, 2e-3)
    for epochs in numbers
]


# From the cloze to next-item targets


class HidesTheRight(ModernTransformer):
    """A share of the masked items is predicted from what comes before alone; with `causal` settings the items before
    are read from left to right, too."""

    def __init__(self, item_count, settings, share=1.0):
        super().__init__(item_count, settings)
        self.share = share

    def forward(self, batch, valid=None, negatives=None):
        before = torch.minimum(batch.visible_until, batch.target_positions)
        hides = torch.rand(before.shape, device=before.device) < self.share
        batch = batch._replace(visible_until=torch.where(hides, before, batch.visible_until))
        if self.settings.causal:
            upto = torch.arange(batch.history.shape[1], device=before.device) + 1
            batch = batch._replace(history_visible_until=upto.expand_as(batch.history))
        return super().forward(batch, valid, negatives)


AT_NEXT = {"epochs": 16, "causal": True}  # as many epochs as the cloze has on `small`
CLOZE_TO_NEXT = {
    variant.title: variant
    for variant in (
        Variant("the recipe: now and then the newest item alone", {}, "modern-cloze"),
        Variant("cloze alone: .3 of the items masked", {"p_mask_last": 0.0}, "modern-cloze"),
        *(
            Variant(
                f"what follows is hidden from {what}",
                {"p_mask_last": 0.0},
                "modern-cloze",
                build=partial(HidesTheRight, share=share),
            )
            for what, share in {"half of the targets": 0.5, "all targets": 1.0}.items()
        ),
        Variant(
            "and from the items before them",
            {"p_mask_last": 0.0, "causal": True},
            "modern-cloze",
            build=HidesTheRight,
        ),
        Variant(
            "no item is masked: next-item targets at .3 of the positions", AT_NEXT | {"next_ratio": 0.3}, "modern-next"
        ),
        Variant("next-item targets at all positions", AT_NEXT, "modern-next"),
    )
}


# Sampled softmax

GBCE_NEGATIVES, CALIBRATION = 1024, 0.75


class WithGBCE(ModernTransformer):
    """The loss of gSASRec: binary cross-entropy of the target and of negatives drawn uniformly, which are many too few;
    the target's probability is raised to a power that makes up for it (Petrov & Macdonald, RecSys 2023, section 5)."""

    def forward(self, batch, valid=None, negatives=None):
        valid = batch.valid() if valid is None else valid
        states, labels = self.target_states(batch).flatten(0, 1)[valid].float(), batch.labels.flatten()[valid] - 1
        weight = self.item_embedding.weight[1:-1]
        items = torch.randint(self.item_count, (GBCE_NEGATIVES,), device=self.device)
        target = (states * F.embedding(labels, weight)).sum(1) + self.item_bias[labels]
        others = torch.addmm(self.item_bias[items], states, F.embedding(items, weight).T)
        others = F.softplus(others).masked_fill(items == labels[:, None], 0)  # - log(1 - sigmoid)
        share = GBCE_NEGATIVES / (self.item_count - 1)
        power = share * (CALIBRATION * (1 - 1 / share) + 1 / share)
        return (others.sum(1) - power * F.logsigmoid(target)).mean() / (GBCE_NEGATIVES + 1)


SOFTMAX = {
    "all": Variant("all items", {"negatives": 0}),
    **{f"{count}": Variant(f"a sample of {count:,}", {"negatives": count}) for count in (256, 512, 1024)},
    "gbce": Variant(
        f"gBCE, t = {CALIBRATION}, {GBCE_NEGATIVES:,} items drawn uniformly", {"negatives": 0}, build=WithGBCE
    ),
}


def full_test(model: Scorer, dataset: Dataset) -> dict:
    return {"test": evaluate(model, dataset.split.test, ["full"], progress=False)["full"]}


# The ladder

OVERWRITES, SEES_PADDING, LARGE_START = "overwrites the newest item", "sees padding", "starts at N(0, 1)"


class Mistaken(BERT4Rec):
    """The paper's network as the notebook has it, without what the paper does not mention (two layer norms, the initial
    weights) and without the projection of equation 7, and with some `mistakes`."""

    def __init__(self, item_count, settings, mistakes=()):
        super().__init__(item_count, settings)
        self.mistakes = mistakes
        self.embedding_norm = nn.Identity()
        self.apply(init_weights)
        if LARGE_START in mistakes:  # every part as PyTorch makes it
            for module in self.modules():
                if reset := getattr(module, "reset_parameters", None):
                    reset()

    def encode(self, tokens):
        if SEES_PADDING not in self.mistakes:
            return super().encode(tokens)
        states = self.embed(tokens)
        for block in self.blocks:
            states = block(states, states, torch.ones_like(tokens, dtype=torch.bool))
        return states

    def target_states(self, tokens, positions):
        return self.encode(tokens).gather(1, positions[:, :, None].expand(-1, -1, self.settings.width))

    def transform(self, states):
        return states

    @torch.inference_mode()
    def score(self, histories):
        if OVERWRITES not in self.mistakes:
            return super().score(histories)
        starts = np.maximum(histories.lengths - self.settings.max_length, 0)
        tokens = pad_left(histories, np.arange(len(histories)), starts, histories.lengths)
        tokens[:, -1] = self.mask_token
        with evaluating(self):
            return self.logits(self.encode(torch.from_numpy(tokens).to(self.device))[:, -1]).cpu().numpy()


def split_of_the_notebook(dataset: Dataset) -> Dataset:
    """Equal timestamps in the order in which items first appear in the file, and training on all but the test item."""
    ratings = dataset.log.ratings
    first_seen = pd.factorize(ratings.item)[0]
    ratings = ratings.assign(first_seen=first_seen).sort_values(["user", "timestamp", "first_seen"])
    vocabulary, sequences, _ = build_sequences(ratings, min_item_ratings=1, tie_seed=None)
    split = leave_one_out(sequences)
    return Dataset(vocabulary, sequences, dataset.log, replace(split, train=split.test.histories))


def constant_rate(trainer: Trainer) -> None:
    """Adam at one learning rate."""
    rate = trainer.settings.training.learning_rate
    trainer.optimizer = torch.optim.Adam(trainer.model.parameters(), lr=rate)
    trainer.schedule = torch.optim.lr_scheduler.LambdaLR(trainer.optimizer, lambda step: 1)


def metrics_of_the_notebook(model: Scorer, holdout: Holdout, seed: int = 0) -> dict[str, float]:
    """Hit@10 and NDCG@10 against 100 uniform draws from all items, the target and those of the history included."""
    random, ranks = np.random.default_rng(seed), []
    for rows in np.array_split(np.arange(len(holdout)), len(holdout) // 256 + 1):
        scores = model.score(holdout.histories.rows(rows))
        targets = np.take_along_axis(scores, holdout.targets[rows, None] - 1, 1)
        drawn = random.integers(0, scores.shape[1], (len(rows), 100))
        ranks.append(1 + (np.take_along_axis(scores, drawn, 1) > targets).sum(1))
    ranks = np.concatenate(ranks)
    hit = ranks <= 10
    return {"hit@10": hit.mean(), "ndcg@10": (hit / np.log2(ranks + 1)).mean()}


def all_tests(model: Scorer, dataset: Dataset) -> dict:
    test = dataset.split.test
    return {"test": evaluate(model, test, progress=False) | {"notebook": metrics_of_the_notebook(model, test)}}


def ladder() -> list[Variant]:
    """The rungs; each keeps what those before it have changed."""
    changes, rungs = {}, []

    def rung(title, *mistakes, recipe="bert4rec", prepare=constant_rate, **changed):
        changes.update(changed)
        build = partial(Mistaken, mistakes=mistakes) if recipe == "bert4rec" else build_network
        rungs.append(Variant(title, dict(changes), recipe, build=build, prepare=prepare))

    changes |= {"min_item_ratings": 1, "max_length": 50, "width": 64, "layers": 2, "heads": 2, "conv_size": 0}
    changes |= {"dropout": 0.2, "start": "random", "mask_ratio": 0.15, "p_mask_last": 0.0, **CLOZE}
    changes |= {"batch_size": 128, "bucket_by_length": True, "learning_rate": 1e-3, "epochs": 20, "patience": 1000}
    rung("the starting notebook", OVERWRITES, SEES_PADDING, LARGE_START)
    rungs[0] = rungs[0]._replace(split=split_of_the_notebook)
    rung("ties in file order, an item held out for validation", OVERWRITES, SEES_PADDING, LARGE_START)
    rung("[MASK] after the newest item, not over it", SEES_PADDING, LARGE_START)
    rung("padding is not seen", LARGE_START)
    rung("starts at N(0, .02)")
    rung("30 epochs, not 20", epochs=30)
    rung("now and then only the newest item is masked", p_mask_last=0.1)
    rung("histories of 200 items", max_length=200)
    rung("warm start", start="counts")
    rung("rotary positions, norm first, [MASK] aside", recipe="modern-cloze", p_mask_last=0.0)
    rung("next-item targets", recipe="modern-both", p_causal=0.5, p_cloze=0.0)
    rung("batches of 32", recipe="modern-both", batch_size=32, epochs=18)
    rung("the learning rate rises, then falls", recipe="modern-both", prepare=None)
    return rungs


STUDIES = {
    "ablations": Study(ABLATIONS, lambda preset, name: f"ablations/{preset}-{name}", None, with_linear),
    "tuning": Study(
        {variant.title: variant for variant in TUNING},
        lambda preset, name: f"ablations/tune-{preset}-{name.partition(',')[0]}",
        "tried",
        lambda model, dataset: {},
    ),
    "cloze-to-next": Study(CLOZE_TO_NEXT, lambda preset, name: f"cloze-to-next-{preset}", "runs", lambda *_: {}),
    "sampled-softmax": Study(SOFTMAX, lambda preset, name: f"sampled-softmax-{preset}", "rows", full_test),
    "ladder": Study(
        {variant.title: variant for variant in ladder()},
        lambda preset, name: "ladder" if preset == "ml-1m" else f"ladder-{preset}",
        "rungs",
        all_tests,
        best_epoch=False,
    ),
}


def recorded_runs(file: str, runs_key: str | None) -> list[dict]:
    if not path_of(file).exists():
        return []
    content = read_result(file)
    return content[runs_key] if runs_key else [content]


def is_same(recorded: dict, wanted: dict) -> bool:
    """Whether a run is recorded; some older ones have no settings or no seed, which was 0."""
    settings = settings_of_today(recorded["settings"]) if "settings" in recorded else wanted["settings"]
    known = {"seed": 0} | recorded | {"settings": settings}
    return wanted.items() <= known.items()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these variants, or recipes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--name", help="of the machine, say")
    arguments = parser.parse_args()
    study, preset = STUDIES[arguments.study], arguments.preset
    for seed in arguments.seeds:
        for name, variant in study.variants.items():
            if arguments.only and name.partition(",")[0] not in arguments.only:
                continue
            file = study.file(preset, name) + (f"-{arguments.name}" if arguments.name else "")
            if seed and not study.runs_key:
                file += f"-seed{seed}"
            settings, runs = variant.settings(preset), recorded_runs(file, study.runs_key)
            wanted = {"title": variant.title, "settings": asdict(settings), "seed": seed}
            if any(is_same(recorded, wanted) for recorded in runs):
                continue
            found = wanted | run(study, variant, settings, seed)
            command = f"python benchmarks/variants.py {shlex.join(sys.argv[1:])}"
            write_result(file, command, **({study.runs_key: [*runs, found]} if study.runs_key else found))
            best = max(row["ndcg@10"] for row in found["history"])
            print(f"{variant.title}: validation NDCG@10 {best:.4f}", flush=True)


if __name__ == "__main__":
    main()
