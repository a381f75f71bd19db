"""The state of a training run: its steps, epochs and validation, and how it saves and loads itself."""

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from .batches import Batch, ahead, batches_of_epoch
from .checkpoints import Checkpoint
from .cpu import multiplies_bfloat16, release_memory
from .dataset import Dataset
from .evaluation import metrics, target_ranks
from .files import replace_file, short
from .model import BERT4Rec
from .presets import Preset
from .processes import count, from_first, is_first, number, summed, together
from .progress import progress_bar, say
from .questions import batch_count
from .sequences import Holdout

MAX_GRADIENT_NORM = 5.0
STEPS_UNCHECKED = 50  # a loss is looked at only so often: a GPU would have to stop for it


class Run:
    """A training run: a model, its optimizer and schedule, and what has happened so far. It saves and loads itself."""

    def __init__(self, model: BERT4Rec, dataset: Dataset, seed: int):
        if model.item_count != len(dataset.vocabulary):
            raise ValueError(f"the model has {model.item_count:,} items, the data {len(dataset.vocabulary):,}")
        preset = model.preset
        self.model, self.dataset, self.seed, self.preset = model, dataset, seed, preset
        self.trained = together(model)  # the model as the processes train it
        auto = preset.precision == "auto"
        self.is_bfloat16 = multiplies_bfloat16(model.device) if auto else preset.precision == "bfloat16"
        self.holdout = sample_holdout(dataset.split.validation, preset.validation_users, seed)
        self.steps = batch_count(dataset.split.train, preset)  # of an epoch
        if len(dataset.split.train) // self.steps < count():
            raise ValueError(f"a batch of {preset.batch_size} users is too small for {count()} processes")
        self.optimizer = torch.optim.AdamW(
            parameter_groups(model, preset.weight_decay), lr=preset.learning_rate, betas=(0.9, 0.98), fused=True
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

    def train_epoch(self, on_step: Callable[["Run", Batch], None] | None = None) -> float:
        """One pass over the training sequences; the mean loss. All its randomness comes from (seed, epoch)."""
        epoch = len(self.history)
        torch.manual_seed(self.seed * 100_003 + epoch + (number() << 40))  # each process drops out by itself
        random = np.random.default_rng([self.seed, epoch])
        batches = batches_of_epoch(self.dataset.split.train, self.model.item_count, self.preset, random)
        if self.model.device.type == "cuda":
            batches = map(Batch.pinned, batches)
        self.model.train()
        losses = []
        for batch in progress_bar(ahead(batches), total=self.steps, desc=f"epoch {epoch + 1}", leave=False):
            losses.append(self.take_step(batch))
            if len(losses) % STEPS_UNCHECKED == 0 or len(losses) == self.steps:
                first = (len(losses) - 1) // STEPS_UNCHECKED * STEPS_UNCHECKED
                require_finite(summed(torch.stack(losses[first:])), epoch + 1, first + 1)
                release_memory()
            if on_step:
                on_step(self, batch)
        return summed(torch.stack(losses)).mean().item()

    def take_step(self, batch: Batch) -> torch.Tensor:
        """Learn from one batch; its loss, or this process's part of it."""
        device = self.model.device
        batch = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.is_bfloat16):
            loss = self.trained(batch.questions, batch.used, batch.negatives) * batch.share
        self.optimizer.zero_grad(set_to_none=True)
        (loss * count()).backward()  # the processes' gradients are averaged, and these parts are to be added up
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.schedule.step()
        return loss.detach()

    def validate(self) -> dict[str, float]:
        """Hit@10 and NDCG@10 on validation data; the weights are remembered if they are the best so far."""
        table = metrics(self.validation_ranks(), [10])
        if table["ndcg@10"] > max((row["ndcg@10"] for row in self.history), default=-1):
            self.best_weights = {name: value.cpu().clone() for name, value in self.model.state_dict().items()}
        return {name: table[name] for name in ("hit@10", "ndcg@10")}

    def validation_ranks(self) -> np.ndarray:
        """The rank (U,) of each target of `holdout` among all items; every process finds a part of them."""
        ranks = torch.zeros(len(self.holdout.targets), device=self.model.device)
        mine = np.arange(number(), len(ranks), count())
        if len(mine):
            part = Holdout(self.holdout.histories.rows(mine), self.holdout.targets[mine])
            found = target_ranks(self.model, part, ["full"], progress=False)["full"]
            ranks[torch.from_numpy(mine)] = torch.from_numpy(found).to(ranks)
        return summed(ranks).cpu().numpy()

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
        """Go on from what `save` wrote, if it is there. ValueError, and an unchanged run, if it is damaged or of
        another run."""
        content = from_first(path.read_bytes() if is_first() and path.exists() else None)
        if content is None:
            return
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
        say(f"Going on with the run in {short(path.parent)} after epoch {len(self.history)}.")


def require_finite(losses: torch.Tensor, epoch: int, first: int) -> None:
    """FloatingPointError if one of the `losses` is not; they are those of the steps from number `first` on."""
    for step, loss in enumerate(losses.tolist(), start=first):
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} in step {step} of epoch {epoch}; the best model of the epochs before is kept. "
                "Train with a lower learning rate, into another folder"
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
