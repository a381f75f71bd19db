"""The training loop: steps, epochs, validation, and runs that resume where they were interrupted."""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..common import display_path, is_interactive, is_main_process, print_status, progress_bar
from ..data.dataset import Dataset
from ..data.logs import Interactions
from ..evaluation.baselines import linear_baseline
from ..evaluation.mixture import fit_mixture
from ..evaluation.ranking import metrics, target_ranks
from ..model.layers import Network
from ..model.masking import batch_count
from ..model.modern import build_network
from ..settings import Settings, TrainingSettings, get_preset
from . import devices
from .batches import Batch, epoch_batches, prefetch
from .checkpoints import Checkpoint, save, save_items, set_aside
from .initial_weights import carry_over, start_from_counts
from .unfinished import (
    THOSE_BEFORE,
    UNFINISHED,
    check_items_file,
    check_run_key,
    digest_of_weights,
    locked,
    read_state,
    run_key,
    write_state,
    writing_to,
)

MAX_GRADIENT_NORM = 5.0
CONTINUED_RATE = 0.5  # of the learning rate, where a training goes on
CHECK_EVERY = 50  # steps between checks that the loss is finite; each check makes a GPU wait


def new_model(
    dataset: Dataset,
    settings: Settings,
    seed: int = 0,
    build: Callable[..., Network] = build_network,
    device: torch.device | None = None,
) -> Network:
    """An untrained model of `settings`, on `device` (else the best), started from counts if the settings say so. Of
    several processes the main one has the weights that `Trainer` gives to all."""
    torch.manual_seed(seed)
    model = build(len(dataset.vocabulary), settings.model)
    if settings.training.start == "counts" and is_main_process():
        start_from_counts(model, dataset.split.train, seed)
    return model.to(device or devices.best_device())


def continued_model(
    checkpoint: Checkpoint, dataset: Dataset, seed: int = 0, device: torch.device | None = None
) -> Network:
    """A trained model as it goes on with the items of `dataset`, its log with new rows: those it knows keep their
    weights (`carry_over`). It is on `device`, else on that of the checkpoint. ValueError if it knows no item."""
    tokens = checkpoint.vocabulary.tokens_as_written(dataset.vocabulary.items.tolist())  # ids may have become texts
    if not tokens.any():
        raise ValueError("the model knows no item of this log; give the log it was trained on, or train a new model")
    torch.manual_seed(seed)
    model = build_network(len(tokens), checkpoint.settings.model)
    carry_over(model, checkpoint.model, tokens, dataset.split.train)
    return model.to(device or checkpoint.model.device)


def continued_settings(settings: Settings) -> Settings:
    """`settings` for training that goes on from a model: a quarter of its preset's epochs, and CONTINUED_RATE times its
    preset's learning rate. The epochs and the rate in `settings` do not count. ValueError for an unknown preset."""
    preset = get_preset(settings.preset, settings.recipe, settings.start).training
    return settings.change(epochs=max(1, preset.epochs // 4), learning_rate=CONTINUED_RATE * preset.learning_rate)


class Trainer:
    """The state of a training run: a model, its optimizer and schedule, and what has happened so far."""

    def __init__(
        self,
        model: Network,
        dataset: Dataset,
        settings: Settings,
        seed: int = 0,
        verbose: bool = True,
        continued: bool = False,
    ):
        if model.item_count != len(dataset.vocabulary):
            problem = f"the model has {model.item_count:,} items, the data {len(dataset.vocabulary):,}"
            raise ValueError(f"{problem}; make it with new_model(dataset, settings)")
        if model.settings != settings.model:
            problem = f"the model was built with {model.settings}, and the settings have {settings.model}"
            raise ValueError(f"{problem}; make it with new_model(dataset, settings)")
        if dataset.repeats != settings.data.repeats:
            problem = f"the data have repeats={dataset.repeats}, and the settings repeats={settings.data.repeats}"
            raise ValueError(f"{problem}; settings.change(repeats={dataset.repeats!r}) makes them agree")
        if dataset.counts and (lowest := dataset.counts.min_item_ratings) != settings.data.min_item_ratings:
            problem = f"the data have min_item_ratings={lowest}, and the settings {settings.data.min_item_ratings}"
            raise ValueError(f"{problem}; settings.change(min_item_ratings={lowest}) makes them agree")
        most = settings.data.max_users
        if dataset.counts and most and dataset.counts.users > most and not dataset.counts.rows_of_later_users:
            problem = f"the data have {dataset.counts.users:,} users, and the settings max_users={most:,}"
            raise ValueError(f"{problem}; settings.change(max_users=None) makes them agree")
        self.model, self.dataset, self.settings, self.seed, self.verbose = model, dataset, settings, seed, verbose
        training = settings.training
        self.ddp_model = devices.wrap_ddp(model)
        auto = training.precision == "auto"
        self.is_bfloat16 = devices.multiplies_bfloat16(model.device) if auto else training.precision == "bfloat16"
        self.holdout = dataset.split.validation.sample(training.validation_users, seed)
        self.steps_per_epoch = batch_count(dataset.split.train, training.batch_size)
        if len(dataset.split.train) // self.steps_per_epoch < (processes := devices.world_size()):
            raise ValueError(f"a batch of {training.batch_size} users is too small for {processes} processes")
        groups = parameter_groups(model, training.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=training.learning_rate, betas=(0.9, 0.98), fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, warmup_cosine(training, self.steps_per_epoch))
        self.history: list[dict[str, float]] = []  # one row per epoch
        self.best_weights: dict[str, Tensor] = {}
        # training may go on from a model that has been moved aside by now, so that its weights cannot be compared
        self.run_key = run_key(THOSE_BEFORE if continued else digest_of_weights(model), dataset, settings, seed)
        self.stateful: dict[str, Any] = {"weights": model, "optimizer": self.optimizer, "schedule": self.schedule}

    @property
    def best_epoch(self) -> int:
        """The row of `history` with the best validation NDCG@10, the first of equals."""
        return max(range(len(self.history)), key=lambda row: self.history[row]["ndcg@10"])

    def is_over(self) -> bool:
        """Whether all epochs are done. None is left out: the learning rate falls until the last."""
        return len(self.history) >= self.settings.training.epochs

    def train_epoch(self, on_step: Callable[["Trainer", Batch], None] | None = None) -> float:
        """One pass over the training sequences; the mean loss per target. All its randomness is that of (seed, epoch).
        FloatingPointError if a loss or, in the end, a weight is not finite."""
        epoch = len(self.history)
        # each process has dropout of its own; a CPU's generator takes only 32 bits of a seed
        torch.manual_seed(self.seed * 100_003 + epoch + devices.rank() * 10_000_019)
        random = np.random.default_rng([self.seed, epoch])
        batches = epoch_batches(self.dataset.split.train, self.model.item_count, self.settings, random)
        if self.model.device.type == "cuda":
            batches = map(Batch.pin_memory, batches)
        self.model.train()
        losses, target_counts = [], []
        look: dict[str, Any] = {"desc": f"epoch {epoch + 1}", "leave": False, "show": self.verbose}
        for batch in progress_bar(prefetch(batches), total=self.steps_per_epoch, **look):
            losses.append(self.train_step(batch))
            target_counts.append(batch.target_count)
            if len(losses) % CHECK_EVERY == 0 or len(losses) == self.steps_per_epoch:
                first = (len(losses) - 1) // CHECK_EVERY * CHECK_EVERY
                require_finite(devices.all_reduce_sum(torch.stack(losses[first:])), epoch + 1, first + 1)
                devices.release_memory()
            if on_step:
                on_step(self, batch)
        if not all(parameter.isfinite().all() for parameter in self.model.parameters()):  # the last step did that
            raise FloatingPointError(f"a weight is not finite after epoch {epoch + 1}; {lower_rate(epoch + 1)}")
        return float(np.average(devices.all_reduce_sum(torch.stack(losses)).cpu(), weights=target_counts))

    def train_step(self, batch: Batch) -> Tensor:
        """One optimizer step on `batch`. Returns this process's part of its mean loss, a detached scalar."""
        device = self.model.device
        batch = batch.to(device)
        self.optimizer.zero_grad(set_to_none=True)
        with devices.matmul_precision(self.is_bfloat16):
            with torch.autocast(device.type, torch.bfloat16, enabled=self.is_bfloat16):
                loss = self.ddp_model(batch.masked, batch.target_index, batch.negatives) * batch.target_share
            (loss * devices.world_size()).backward()  # gradients are averaged over processes; these are parts of a sum
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.schedule.step()
        return loss.detach()

    def validate(self) -> dict[str, float]:
        """Hit@10 and NDCG@10 on validation data, full ranking; the weights are kept if they are the best so far."""
        ranks = torch.zeros(len(self.holdout), device=self.model.device)
        mine = np.arange(devices.rank(), len(ranks), devices.world_size())  # every process ranks a part of the users
        if len(mine):
            found = target_ranks(self.model, self.holdout.rows(mine), ["full"], progress=False)["full"]
            ranks[torch.from_numpy(mine)] = torch.from_numpy(found).to(ranks)
        table = metrics(devices.all_reduce_sum(ranks).cpu().numpy(), [10])
        if table["ndcg@10"] > max((row["ndcg@10"] for row in self.history), default=-1):
            self.best_weights = {name: value.cpu().clone() for name, value in self.model.state_dict().items()}
        return {name: table[name] for name in ("hit@10", "ndcg@10")}

    def checkpoint(self) -> Checkpoint:
        """The model as it is now, without the weight of the linear baseline."""
        history, dataset, settings = pd.DataFrame(self.history), self.dataset, self.settings
        if is_of_frame(dataset, settings):
            is_part = dataset.counts and dataset.counts.rows_of_later_users
            settings = settings.change(release=None, max_users=settings.data.max_users if is_part else None)
        return Checkpoint(self.model, dataset.vocabulary, settings, self.seed, history, dataset.fingerprint)

    def save(self, path: Path) -> None:
        """Write all that `load` needs to go on after the last whole epoch."""
        state = {"run_key": self.run_key, "history": self.history, "best_weights": self.best_weights}
        write_state(path, state | {name: part.state_dict() for name, part in self.stateful.items()})

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote, if it is there; ValueError if it is damaged or of another run."""
        content = devices.broadcast(path.read_bytes() if is_main_process() and path.exists() else None)
        if content is None:
            return
        state = read_state(path, content)
        check_run_key(path, state["run_key"], self.run_key)
        self.history, self.best_weights = state["history"], state["best_weights"]
        for name, part in self.stateful.items():
            part.load_state_dict(state[name])
        if self.verbose:
            print_status(f"Resuming the run in {display_path(path.parent)} after epoch {len(self.history)}.")


def is_of_frame(dataset: Dataset, settings: Settings) -> bool:
    """Whether the data are a log of one's own that no file of the settings holds."""
    log = dataset.source
    return isinstance(log, Interactions) and log.own and not settings.data.ratings_file


def fit(
    model: Network,
    dataset: Dataset,
    settings: Settings,
    *,
    seed: int = 0,
    folder: str | Path | None = None,
    continued: bool = False,
    on_epoch: Callable[[Trainer], None] | None = None,
    on_step: Callable[[Trainer, Batch], None] | None = None,
    verbose: bool = True,
) -> pd.DataFrame:
    """Train `model` in place, as `settings` say; leave it in evaluation mode, with the weights of the best validation
    NDCG@10.

    Returns one row per epoch: epoch, loss (mean cross-entropy per target, nats), learning_rate (after the epoch),
    hit@10 and ndcg@10 (validation, full ranking), seconds (since the start). With a `folder`, the best epoch is kept
    there for `load`, at the end with the weight of the linear baseline in its mixture, and a run that was interrupted
    resumes after its last epoch; a finished model that lies there is moved to a subfolder (say `continued` if `model`
    is what `continued_model` made of it). `on_step` is called after each batch, `on_epoch` after each epoch. Of several
    processes (devices.py) the main one writes. Nothing is printed unless `verbose`.
    ValueError if the folder holds the unfinished run of other settings or data, or an items.csv of the user's own, or
    another training is at work in it; FloatingPointError if the loss or a weight is not finite; OSError if the folder
    cannot be written; what it holds is kept.
    """
    trainer = Trainer(model, dataset, settings, seed, verbose, continued)
    folder = Path(folder) if folder else None
    if folder and is_main_process():
        check_items_file(folder, dataset, settings)
    with locked(folder):
        if folder:
            trainer.load(folder / UNFINISHED)
        run_epochs(trainer, folder, on_epoch, on_step)
        model.load_state_dict(trainer.best_weights)
        model.eval()
        if folder and is_main_process():
            finalize(trainer, folder)
    return pd.DataFrame(trainer.history)


def run_epochs(
    trainer: Trainer, folder: Path | None, on_epoch: Callable | None = None, on_step: Callable | None = None
) -> None:
    """Epoch after epoch, until the run is over."""
    epochs, verbose = trainer.settings.training.epochs, trainer.verbose
    if verbose:
        processes = f" in {devices.world_size()} processes" if devices.world_size() > 1 else ""
        where = f"{trainer.model.device}{processes} in {'bfloat16' if trainer.is_bfloat16 else 'float32'}"
        length = f"{epochs} epoch{'s' if epochs > 1 else ''} of {trainer.steps_per_epoch} batches"
        what = f"{length}, {trainer.model.item_count:,} items"
        print_status(f"Training on {where}: {what}; the time left is known after the first epoch.")
    bar = progress_bar(initial=len(trainer.history), total=epochs, desc="epochs", unit="epoch", show=verbose)
    before = trainer.history[-1]["seconds"] if trainer.history else 0.0
    started = time.perf_counter()
    while not trainer.is_over():
        row = {"epoch": len(trainer.history) + 1, "loss": trainer.train_epoch(on_step)}
        row |= {"learning_rate": float(trainer.schedule.get_last_lr()[0])} | trainer.validate()
        trainer.history.append(row | {"seconds": before + time.perf_counter() - started})
        if is_main_process():
            if folder:
                save_epoch(trainer, folder)
            bar.update()
            if verbose:
                report(trainer, bar)
        if on_epoch:
            on_epoch(trainer)
    bar.close()


def save_epoch(trainer: Trainer, folder: Path) -> None:
    """Save the state after an epoch, and the model if it is the best so far. A model that is in the folder without
    UNFINISHED beside it belongs to a finished run: the first epoch moves it away."""
    with writing_to(folder):
        if len(trainer.history) == 1:
            if (place := set_aside(folder)) and trainer.verbose:
                print_status(f"The finished model in {display_path(folder)} is moved to {display_path(place)}.")
            if trainer.dataset.item_table is not None or trainer.dataset.log is not None:
                save_items(folder, trainer.dataset.items)
        trainer.save(folder / UNFINISHED)
        if trainer.best_epoch == len(trainer.history) - 1:
            save(folder, trainer.checkpoint())


def finalize(trainer: Trainer, folder: Path) -> None:
    """Add the weight of the linear baseline to the model of a run that is over, which needs nothing else any more."""
    baseline = linear_baseline(trainer.dataset.split.train, trainer.model.item_count)
    mixture = fit_mixture(trainer.model, baseline, trainer.holdout)
    with writing_to(folder):
        path = save(folder, replace(trainer.checkpoint(), linear_weight=mixture.weight))
        (folder / UNFINISHED).unlink()
    if trainer.verbose:
        print_status(f"The model is in {display_path(path)}.")


def report(trainer: Trainer, bar: tqdm) -> None:
    """The last epoch: on the bar, or as a line of a log that nobody watches."""
    row, epochs = trainer.history[-1], trainer.settings.training.epochs
    if is_interactive():
        bar.set_postfix(loss=f"{row['loss']:.3f}", ndcg=f"{row['ndcg@10']:.4f}")
        return
    spent, left = row["seconds"] / 60, row["seconds"] / row["epoch"] * (epochs - row["epoch"]) / 60
    losses = f"loss {row['loss']:.4f}, validation NDCG@10 {row['ndcg@10']:.4f} (best: epoch {trainer.best_epoch + 1})"
    line = f"{spent:.1f} min, {losses}, {left:.1f} min left"
    print(f"epoch {row['epoch']}/{epochs}: {line}", file=sys.stderr, flush=True)


def require_finite(losses: Tensor, epoch: int, first: int) -> None:
    """Raise FloatingPointError if one of `losses` (steps,) is not finite; `first` is the number of the first step."""
    for step, loss in enumerate(losses.tolist(), start=first):
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} in step {step} of epoch {epoch}; {lower_rate(epoch)}")


def lower_rate(epoch: int) -> str:
    """What to do about numbers that are not finite in `epoch`, from 1."""
    advice = "train with a lower learning rate"
    return advice if epoch == 1 else f"the best model so far is kept; {advice}, into another folder"


def parameter_groups(model: Network, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices only: not for biases and layer norms."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def warmup_cosine(training: TrainingSettings, steps: int) -> Callable[[int], float]:
    """step -> share of the learning rate, for epochs of `steps` steps: a linear warm-up, then half a cosine to zero."""
    total = training.epochs * steps
    warmup = max(1, round(training.warmup_fraction * total))

    def share(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1, (step - warmup) / max(1, total - warmup))))

    return share
