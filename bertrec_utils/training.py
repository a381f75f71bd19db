"""The training loop: validation after each epoch, early stopping, resuming."""

import hashlib
import io
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from .checkpoints import Checkpoint, best_device, save, set_aside
from .cpu import multiplies_bfloat16
from .dataset import Dataset
from .evaluation import metrics, target_ranks
from .files import replace_file, short
from .mixture import counting_model, learn_mixture
from .model import BERT4Rec
from .paper import network
from .presets import Preset
from .progress import is_watched, progress_bar
from .questions import Questions, batch_count, training_batches
from .sequences import Holdout
from .warm_start import warm_start

UNFINISHED = "unfinished.pt"
MAX_GRADIENT_NORM = 5.0


def new_model(
    dataset: Dataset, preset: Preset, seed: int = 0, build: Callable[[int, Preset], BERT4Rec] = network
) -> BERT4Rec:
    """An untrained model of the preset's shape, on the best device, warm-started if the preset says so."""
    torch.manual_seed(seed)
    model = build(len(dataset.vocabulary), preset)
    if preset.warm_start:
        warm_start(model, dataset.split.train, seed)
    return model.to(best_device())


class Run:
    """A training run: a model, its optimizer and schedule, and what has happened so far. It saves and loads itself."""

    def __init__(self, model: BERT4Rec, dataset: Dataset, seed: int):
        if model.item_count != len(dataset.vocabulary):
            raise ValueError(f"the model has {model.item_count:,} items, the data {len(dataset.vocabulary):,}")
        preset = model.preset
        self.model, self.dataset, self.seed, self.preset = model, dataset, seed, preset
        auto = preset.precision == "auto"
        self.is_bfloat16 = multiplies_bfloat16(model.device) if auto else preset.precision == "bfloat16"
        self.holdout = sample_holdout(dataset.split.validation, preset.validation_users, seed)
        self.steps = batch_count(dataset.split.train, preset)  # of an epoch
        self.optimizer = torch.optim.AdamW(
            parameter_groups(model, preset.weight_decay), lr=preset.learning_rate, betas=(0.9, 0.98)
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, warmup_cosine(preset, self.steps))
        self.parts = {"weights": model, "optimizer": self.optimizer, "schedule": self.schedule}
        self.history: list[dict[str, float]] = []  # one row per epoch
        self.best_weights: dict[str, torch.Tensor] = {}
        self.identity = {
            "preset": asdict(replace(preset, ratings_file=None, items_file=None)),  # a log may move: `data` is it
            "seed": seed,
            "data": dataset.fingerprint,
            "model": type(model).__name__,
            # roughly: another machine may round the warm start differently
            "start": {name: f"{value.norm():.3g}" for name, value in model.state_dict().items()},
        }

    @property
    def best_epoch(self) -> int:
        """The row of `history` with the best validation NDCG@10, the first of equals."""
        return max(range(len(self.history)), key=lambda row: self.history[row]["ndcg@10"])

    def is_over(self) -> bool:
        epochs = len(self.history)
        return epochs >= self.preset.epochs or (epochs > 0 and epochs - 1 - self.best_epoch >= self.preset.patience)

    def train_epoch(self, on_step: Callable[["Run", Questions], None] | None = None) -> float:
        """One pass over the training sequences; the mean loss. All its randomness comes from (seed, epoch)."""
        epoch = len(self.history)
        torch.manual_seed(self.seed * 100_003 + epoch)
        random = np.random.default_rng([self.seed, epoch])
        batches = training_batches(self.dataset.split.train, self.model.mask_token, self.preset, random)
        self.model.train()
        losses = []
        for questions in progress_bar(batches, total=self.steps, desc=f"epoch {epoch + 1}", leave=False):
            losses.append(self.take_step(questions))
            if on_step:
                on_step(self, questions)
        loss = torch.stack(losses).mean().item()
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} in epoch {epoch + 1}; start again with a lower learning rate")
        return loss

    def take_step(self, questions: Questions) -> torch.Tensor:
        """Learn from one batch; its loss."""
        device = self.model.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.is_bfloat16):
            loss = self.model(questions.to(device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.schedule.step()
        return loss.detach()

    def validate(self) -> dict[str, float]:
        """Hit@10 and NDCG@10 on validation data; the weights are remembered if they are the best so far."""
        table = metrics(target_ranks(self.model, self.holdout, ["full"], progress=False)["full"], [10])
        if table["ndcg@10"] > max((row["ndcg@10"] for row in self.history), default=-1):
            self.best_weights = {name: value.cpu().clone() for name, value in self.model.state_dict().items()}
        return {name: table[name] for name in ("hit@10", "ndcg@10")}

    def checkpoint(self) -> Checkpoint:
        history = pd.DataFrame(self.history)
        return Checkpoint(self.model, self.dataset.vocabulary, self.seed, history, self.dataset.fingerprint)

    def save(self, path: Path) -> None:
        """Write all that `load` needs to go on after the last whole epoch."""
        state = {"identity": self.identity, "history": self.history, "best_weights": self.best_weights}
        state |= {name: part.state_dict() for name, part in self.parts.items()}
        content = io.BytesIO()
        torch.save(state, content)
        digest = hashlib.sha256(content.getvalue()).digest()
        replace_file(path, lambda partial: partial.write_bytes(digest + content.getvalue()))

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote. ValueError, and an unchanged run, if it is damaged or of another run."""
        content = path.read_bytes()
        digest, content = content[:32], content[32:]
        if hashlib.sha256(content).digest() != digest:
            raise ValueError(f"{path} is damaged; delete it to start over")
        state = torch.load(io.BytesIO(content), map_location=self.model.device, weights_only=True)
        identity = state["identity"]
        others = [name for name, value in self.identity.items() if identity.get(name) != value]
        if others:
            raise ValueError(
                f"{path.parent} holds the unfinished run of another {' and '.join(others)} (preset "
                f"{identity['preset']['name']}, seed {identity['seed']}); choose another folder or delete {path}"
            )
        self.history, self.best_weights = state["history"], state["best_weights"]
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        tqdm.write(f"Going on with the run in {short(path.parent)} after epoch {len(self.history)}.")


def fit(
    model: BERT4Rec,
    dataset: Dataset,
    *,
    seed: int = 0,
    folder: str | Path | None = None,
    on_epoch: Callable[[Run], None] | None = None,
    on_step: Callable[[Run, Questions], None] | None = None,
) -> pd.DataFrame:
    """Train `model` in place, as its preset says, and leave it with the weights of the best validation NDCG@10.

    Returns one row per epoch: epoch, loss (mean cross-entropy, nats per question), learning_rate, hit@10 and ndcg@10
    (validation, full ranking), seconds (since the start). With a `folder`, the best epoch
    is kept there for `load`, with the weight of counting in its mixture, and a run that was interrupted goes on
    from its last epoch; a finished model that lies there is moved to a subfolder. `on_step` is called after each batch,
    `on_epoch` after each epoch.
    ValueError if the folder holds the unfinished run of other settings or data.
    """
    run = Run(model, dataset, seed)
    if folder:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / UNFINISHED).exists():
            run.load(folder / UNFINISHED)
    tqdm.write(
        f"Training on {model.device} in {'bfloat16' if run.is_bfloat16 else 'float32'}: up to {run.preset.epochs} "
        f"epochs of {run.steps} batches, {model.item_count:,} items; the time left is known after the first epoch."
    )
    bar = progress_bar(initial=len(run.history), total=run.preset.epochs, desc="epochs", unit="epoch")
    before = run.history[-1]["seconds"] if run.history else 0.0
    started = time.perf_counter()
    while not run.is_over():
        epoch = {"epoch": len(run.history) + 1, "loss": run.train_epoch(on_step)}
        epoch |= {"learning_rate": run.schedule.get_last_lr()[0]} | run.validate()
        run.history.append(epoch | {"seconds": before + time.perf_counter() - started})
        if folder:
            keep(run, folder)
        bar.update()
        report(run, bar)
        if on_epoch:
            on_epoch(run)
    bar.close()
    model.load_state_dict(run.best_weights)
    if folder:
        mixture = learn_mixture(model, counting_model(dataset.split.train, model.item_count), run.holdout)
        path = save(folder, replace(run.checkpoint(), counting_weight=mixture.weight))
        (folder / UNFINISHED).unlink()
        tqdm.write(f"The model lies in {short(path)}.")
    return pd.DataFrame(run.history)


def keep(run: Run, folder: Path) -> None:
    """Write what the last epoch has brought.

    A model in the folder is that of a finished run, unless UNFINISHED lies beside it: the first epoch sets it aside.
    """
    if len(run.history) == 1 and (place := set_aside(folder)):
        tqdm.write(f"The finished model in {short(folder)} is moved to {short(place)}.")
    run.save(folder / UNFINISHED)
    if run.best_epoch == len(run.history) - 1:
        save(folder, run.checkpoint())


def report(run: Run, bar: tqdm) -> None:
    """The last epoch: on the bar, or as a line of a log that nobody watches."""
    row = run.history[-1]
    if is_watched():
        bar.set_postfix(loss=f"{row['loss']:.3f}", ndcg=f"{row['ndcg@10']:.4f}")
        return
    left = row["seconds"] / row["epoch"] * (run.preset.epochs - row["epoch"]) / 60
    print(
        f"epoch {row['epoch']}/{run.preset.epochs}: {row['seconds'] / 60:.1f} min, loss {row['loss']:.4f}, validation "
        f"NDCG@10 {row['ndcg@10']:.4f} (best: epoch {run.best_epoch + 1}), at most {left:.1f} min left",
        file=sys.stderr,
        flush=True,
    )


def parameter_groups(model: BERT4Rec, weight_decay: float) -> list[dict]:
    """Weight decay for matrices only: not for biases and layer norms."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def warmup_cosine(preset: Preset, steps: int) -> Callable[[int], float]:
    """step -> share of the learning rate: a linear climb, then half a cosine down to zero."""
    total = preset.epochs * steps
    warmup = max(1, round(preset.warmup_share * total))

    def share(step):
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1, (step - warmup) / max(1, total - warmup))))

    return share


def sample_holdout(holdout: Holdout, most: int, seed: int) -> Holdout:
    """All of `holdout`, or a random sample of `most` users of it."""
    if len(holdout.targets) <= most:
        return holdout
    rows = np.sort(np.random.default_rng(seed).choice(len(holdout.targets), most, replace=False))
    return Holdout(holdout.histories.rows(rows), holdout.targets[rows])
