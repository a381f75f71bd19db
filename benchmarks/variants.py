"""Train variants of a preset, one thing changed at a time, and record what each is worth: a study.

    python benchmarks/variants.py ablations small
    python benchmarks/variants.py tuning small --only modern-next
    python benchmarks/variants.py grid small --seeds 0 1
    python benchmarks/variants.py mistakes small --seeds 0 1
    python benchmarks/variants.py starting-notebook ml-1m
    python benchmarks/variants.py cloze-to-next small --seeds 0 1
    python benchmarks/variants.py sampled-softmax ml-1m --seeds 0 1 2
    python benchmarks/variants.py test-curve ml-1m

`ablations` takes one ingredient out at a time; validation data, alone and mixed with the linear baseline.
`tuning` tries ten settings of each recipe, the modern recipes for 8 epochs each on `small`, bert4rec for 32; validation
data. The best trial replaces the recipe if it is ahead by more than .003, the margin of `compare`. Since the best of
ten owes something to chance, it must still be so in the mean of two seeds.
`grid` crosses network, objective and start at one width, learning rate and number of epochs; validation data, and the
ranks of its users. It measures how far one comes in that time: a random start and the authors' network have not come to
their end.
`mistakes` puts the mistakes of the notebook this project started from into a good model, one at a time; test, and
nothing is chosen by it.
`starting-notebook` is that notebook, with all of them.
`cloze-to-next` goes from the cloze to next-item targets, one difference at a time, sixteen epochs each; validation
data.
`sampled-softmax` compares losses over all items, over samples of them, and gBCE; validation and test.
`test-curve` tests `modern-both` after each epoch, to see how soon it passes published test scores; nothing is chosen.

A run that is recorded with the same title, settings and seed is not repeated. `--name` keeps the runs of another
machine apart.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mistakes import (
    LargeStart,
    SeesPadding,
    TheNotebooks,
    chosen_on_the_test,
    constant_rate,
    measured_with_mistakes,
    metrics_of_the_notebook,
    split_of_the_notebook,
    ties_by_id,
)
from recording import add_run, path_of, read_result, require_plan, settings_of_today, write_result
from torch import Tensor, nn

from bertrec_utils.data.dataset import Dataset, load_dataset
from bertrec_utils.data.sequences import PAD, Sequences
from bertrec_utils.evaluation.baselines import linear_baseline
from bertrec_utils.evaluation.mixture import ndcg_by_weight
from bertrec_utils.evaluation.ranking import Scorer, evaluate, target_ranks
from bertrec_utils.model.bert4rec import BERT4Rec
from bertrec_utils.model.masking import append_mask
from bertrec_utils.model.modern import ModernTransformer, build_network
from bertrec_utils.settings import DEFAULT_RECIPE, PRESETS, RECIPES, Settings, get_preset
from bertrec_utils.training.trainer import Trainer, new_model, run_epochs


class Variant(NamedTuple):
    title: str  # what tables call it
    changes: dict[str, Any]  # of the preset's settings
    recipe: str = DEFAULT_RECIPE
    start: str | None = None
    build: Callable = build_network
    prepare: Callable[[Trainer], None] | None = None  # done to the trainer before the first epoch
    split: Callable[[Dataset], Dataset] | None = None  # another split of the same data
    share_of_epochs: float = 1.0  # of those of the recipe

    def settings(self, preset: str) -> Settings:
        settings = get_preset(preset, self.recipe, self.start)
        return settings.change(**{"epochs": round(settings.training.epochs * self.share_of_epochs)} | self.changes)


class Study(NamedTuple):
    variants: dict[str, Variant]
    file: Callable[[str, str], str]  # in results/, from the names of preset and variant
    runs_key: str | None  # what that file calls its list of runs; None: it holds a single run
    measure: Callable[[Scorer, Dataset], dict]  # what is recorded beside settings and history
    best_epoch: bool = True  # measured are the weights of the best epoch, else those of the last


def run(study: Study, variant: Variant, settings: Settings, seed: int) -> dict:
    """What is recorded of one run: a row for each epoch, the seconds from before the ratings were read to the first
    epoch, and what the study measures."""
    started = time.perf_counter()
    dataset = load_dataset(settings.data)
    if variant.split:
        dataset = variant.split(dataset)
    model = new_model(dataset, settings, seed, variant.build)
    trainer = Trainer(model, dataset, settings, seed)
    if variant.prepare:
        variant.prepare(trainer)
    before = time.perf_counter() - started
    run_epochs(trainer, None)
    if study.best_epoch:
        model.load_state_dict(trainer.best_weights)
    return {"seconds_before": before, "history": trainer.history} | study.measure(model, dataset)


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

TUNING_EPOCHS = dict.fromkeys(RECIPES, 8) | {"bert4rec": 32}  # of every trial; bert4rec has hardly begun after 8
TRIALS: dict[str, list[dict[str, Any]]] = {  # what each changes in its recipe: ten, the recipe itself among them
    "bert4rec": [
        *({"learning_rate": rate} for rate in (1e-3, 4e-3)),
        *({"dropout": dropout} for dropout in (0.1, 0.3)),
        *({"mask_ratio": ratio} for ratio in (0.15, 0.5)),
        *({"p_mask_last": share} for share in (0.0, 0.3)),
        {"start": "counts"},
    ],
    "modern-cloze": [
        *({"learning_rate": rate} for rate in (5e-4, 2e-3)),
        *({"dropout": dropout} for dropout in (0.1, 0.3)),
        *({"mask_ratio": ratio} for ratio in (0.15, 0.5)),
        *({"p_mask_last": share} for share in (0.0, 0.3)),
        {"weight_decay": 0.1},
    ],
    "modern-next": [
        *({"learning_rate": rate} for rate in (5e-4, 2e-3)),
        *({"dropout": dropout} for dropout in (0.1, 0.3)),
        *({"conv_size": size} for size in (0, 8)),
        {"next_ratio": 0.5},
        {"start": "random"},
        {"weight_decay": 0.1},
    ],
    "modern-both": [
        *({"learning_rate": rate} for rate in (5e-4, 2e-3)),
        *({"dropout": dropout} for dropout in (0.1, 0.3)),
        *({"mask_ratio": ratio} for ratio in (0.15, 0.5)),
        *({"p_causal": share} for share in (0.25, 0.75)),
        {"weight_decay": 0.1},
    ],
}
BEFORE = {"bert4rec": {"learning_rate": 2e-3}}  # what a recipe had when its trials were run
TUNING = [
    Variant(
        f"{recipe}, {', '.join(f'{name} {value}' for name, value in changes.items()) or 'as it is'}",
        BEFORE.get(recipe, {})
        | {name: value for name, value in changes.items() if name != "start"}
        | {"epochs": TUNING_EPOCHS[recipe]},
        recipe,
        changes.get("start"),
    )
    for recipe, trials in TRIALS.items()
    for changes in ({}, *trials)
]


# What brings what: network x objective x start


class NextItems(BERT4Rec):
    """The authors' network with next items as targets, as SASRec is trained: the items are read from left to right, and
    the state of each predicts the one after it. There is no [MASK]."""

    def encode(self, tokens: Tensor) -> Tensor:
        columns = torch.arange(tokens.shape[1], device=tokens.device)
        is_before, is_itself = columns < columns[:, None], columns == columns[:, None]  # padding sees itself alone
        states, visible = self.embed(tokens), is_before & (tokens != PAD)[:, None] | is_itself
        for block in self.blocks:
            states = block(states, states, visible)
        return states

    def target_states(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """(B, M, D): the final states of the items before `positions`, the newest of which has the last position, as in
        the test."""
        items_before = F.pad(tokens, (1, 0), value=PAD)[:, :-1]
        return self.encode(items_before).take_along_dim(positions[:, :, None], 1)

    def user_vectors(self, histories: Sequences) -> Tensor:
        tokens = append_mask(histories, self.settings.max_length).history.to(self.device)
        return self.transform(self.encode(tokens)[:, -1])


GRID_BUDGET = {"epochs": 16, "learning_rate": 1e-3}
AUTHORS = {"conv_size": 0, "bucket_by_length": False}  # learns better from batches of users drawn at random
NETWORKS: dict[str, tuple[Callable, dict[str, Any]]] = {  # each has one thing more than the one before it
    "norm first": (LearnedPositions, {"conv_size": 0}),
    "+ rotary": (build_network, {"conv_size": 0}),
    "+ convolution": (build_network, {}),
}
GRID = [
    Variant(f"{network}, {recipe.removeprefix('modern-')}, {start}", changes | GRID_BUDGET, recipe, start, build)
    for network, (build, changes) in NETWORKS.items()
    for recipe in ("modern-cloze", "modern-next")
    for start in ("random", "counts")
] + [
    Variant("+ convolution, both, counts", GRID_BUDGET, "modern-both"),
    *(
        Variant(f"authors', {objective}, {start}", AUTHORS | GRID_BUDGET, recipe, start, build)
        for objective, recipe, build in (("cloze", "bert4rec", BERT4Rec), ("next", "modern-next", NextItems))
        for start in ("random", "counts")
    ),
]


def validation_ranks(model: Scorer, dataset: Dataset) -> dict:
    return {"ranks": target_ranks(model, dataset.split.validation, ["full"], progress=False)}


# From the cloze to next-item targets


class HidesTheRight(ModernTransformer):
    """A share of the masked items is predicted from what comes before alone; with `causal` settings the items before
    are read from left to right, too."""

    def __init__(self, item_count, settings, share=1.0):
        super().__init__(item_count, settings)
        self.share = share

    def forward(self, batch, target_index=None, negatives=None):
        before = torch.minimum(batch.visible_until, batch.target_positions)
        hides = torch.rand(before.shape, device=before.device) < self.share
        batch = batch._replace(visible_until=torch.where(hides, before, batch.visible_until))
        if self.settings.causal:
            upto = torch.arange(batch.history.shape[1], device=before.device) + 1
            batch = batch._replace(history_visible_until=upto.expand_as(batch.history))
        return super().forward(batch, target_index, negatives)


EPOCHS_BETWEEN = 16  # of every run, as many as the cloze has on `small`
CLOZE_TO_NEXT = {
    title: Variant(title, {"p_mask_last": 0.0, "epochs": EPOCHS_BETWEEN} | changes, recipe, build=build)
    for title, changes, recipe, build in (
        (
            "modern-cloze: .3 masked, in a tenth only the newest",
            {"p_mask_last": RECIPES["modern-cloze"]["p_mask_last"]},
            "modern-cloze",
            build_network,
        ),
        ("cloze alone: .3 of the items masked", {}, "modern-cloze", build_network),
        ("what follows is hidden from half of the targets", {}, "modern-cloze", partial(HidesTheRight, share=0.5)),
        ("what follows is hidden from all targets", {}, "modern-cloze", HidesTheRight),
        ("and the items before a target do not see it either", {"causal": True}, "modern-cloze", HidesTheRight),
        (
            "no item is masked: next-item targets at .3 of the positions",
            {"next_ratio": 0.3},
            "modern-next",
            build_network,
        ),
        ("next-item targets at all positions", {}, "modern-next", build_network),
    )
}


# Sampled softmax

GBCE_NEGATIVES, CALIBRATION = 1024, 0.75


class WithGBCE(ModernTransformer):
    """The loss of gSASRec: binary cross-entropy of the target and of negatives drawn uniformly, which are many too few;
    the target's probability is raised to a power that makes up for it (Petrov & Macdonald, RecSys 2023, section 5)."""

    def forward(self, batch, target_index=None, negatives=None):
        index = batch.target_index() if target_index is None else target_index
        states, labels = self.target_states(batch).flatten(0, 1)[index].float(), batch.labels.flatten()[index] - 1
        weight = self.item_vectors
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


# Mistakes

MISTAKES = [
    Variant(title, changes, "modern-cloze", **others)
    for title, changes, others in (
        ("none", {}, {}),
        ("embeddings start at random", {}, {"start": "random"}),
        ("embeddings start at random, N(0, 1)", {}, {"start": "random", "build": LargeStart}),
        ("padding is seen", {}, {"build": SeesPadding}),
        ("histories of 50 items", {"max_length": 50}, {}),
        ("a third of the epochs", {}, {"share_of_epochs": 1 / 3}),
        ("ties in the order of ids", {}, {"split": ties_by_id}),
        ("the epoch is chosen on the test", {}, {"split": chosen_on_the_test}),
    )
]
THE_NOTEBOOK = Variant(
    "the starting notebook",
    {"min_item_ratings": 1, "max_length": 50, "width": 64, "heads": 2, "mask_ratio": 0.15, "p_mask_last": 0.0}
    | {"batch_size": 128, "bucket_by_length": True, "learning_rate": 1e-3, "epochs": 20},
    "bert4rec",
    build=TheNotebooks,
    prepare=constant_rate,
    split=split_of_the_notebook,
)


STUDIES = {
    "ablations": Study(ABLATIONS, lambda preset, name: f"ablations/{preset}-{name}", None, with_linear),
    "tuning": Study(
        {variant.title: variant for variant in TUNING},
        lambda preset, name: f"tuning/{preset}-{name.partition(',')[0]}",
        "tried",
        lambda *_: {},
    ),
    "grid": Study(
        {variant.title: variant for variant in GRID}, lambda preset, name: f"grid-{preset}", "runs", validation_ranks
    ),
    "cloze-to-next": Study(CLOZE_TO_NEXT, lambda preset, name: f"cloze-to-next-{preset}", "runs", lambda *_: {}),
    "sampled-softmax": Study(SOFTMAX, lambda preset, name: f"sampled-softmax-{preset}", "rows", full_test),
    "mistakes": Study(
        {variant.title: variant for variant in MISTAKES},
        lambda preset, name: f"mistakes-{preset}",
        "runs",
        measured_with_mistakes,
    ),
    "test-curve": Study(
        {"modern-both": Variant("modern-both", {}, split=chosen_on_the_test)},
        lambda preset, name: f"test-curve-{preset}",
        "runs",
        lambda *_: {},
    ),
    "starting-notebook": Study(
        {"as it was": THE_NOTEBOOK},
        lambda preset, name: f"starting-notebook-{preset}",
        "runs",
        lambda model, dataset: {
            "test": evaluate(model, dataset.split.test, progress=False)
            | {"notebook": metrics_of_the_notebook(model, dataset.split.test)}
        },
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
    is_whole = "history" not in recorded or len(recorded["history"]) == wanted["settings"]["training"]["epochs"]
    return is_whole and wanted.items() <= known.items()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these variants, or recipes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--name", help="of the machine, say")
    arguments = parser.parse_args()
    require_plan(arguments.preset)
    study, preset = STUDIES[arguments.study], arguments.preset
    for seed in arguments.seeds:
        for name, variant in study.variants.items():
            if arguments.only and not {name, name.partition(",")[0]} & set(arguments.only):
                continue
            file = study.file(preset, name) + (f"-{arguments.name}" if arguments.name else "")
            if seed and not study.runs_key:
                file += f"-seed{seed}"
            settings = variant.settings(preset)
            wanted = {"title": variant.title, "settings": asdict(settings), "seed": seed}
            if any(is_same(recorded, wanted) for recorded in recorded_runs(file, study.runs_key)):
                continue
            found = wanted | run(study, variant, settings, seed)
            command = f"python benchmarks/variants.py {shlex.join(sys.argv[1:])}"
            if study.runs_key:
                ranks = {f"{variant.title}, seed {seed}": found.pop("ranks")} if "ranks" in found else None
                add_run(file, study.runs_key, found, command, ranks)
            else:
                write_result(file, command, **found)
            best = max(row["ndcg@10"] for row in found["history"])
            print(f"{variant.title}: validation NDCG@10 {best:.4f}", flush=True)


if __name__ == "__main__":
    main()
