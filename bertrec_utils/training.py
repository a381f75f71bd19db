"""Training a model from the first epoch to the last: early stopping, resuming, what the folder holds."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import filelock
import pandas as pd
import torch
from tqdm.auto import tqdm

from .batches import Batch
from .checkpoints import best_device, save, set_aside
from .dataset import Dataset
from .files import short
from .mixture import counting_model, learn_mixture
from .model import BERT4Rec
from .paper import network
from .presets import Preset
from .processes import count, is_first
from .progress import is_watched, progress_bar, say
from .run import Run
from .warm_start import warm_start

UNFINISHED, LOCK = "unfinished.pt", ".lock"


def new_model(
    dataset: Dataset,
    preset: Preset,
    seed: int = 0,
    build: Callable[[int, Preset], BERT4Rec] = network,
    device: torch.device | None = None,
) -> BERT4Rec:
    """An untrained model of the preset's shape, on `device` (else the best), warm-started if the preset says so.

    Of several processes the first has the weights that `Run` gives to all.
    """
    torch.manual_seed(seed)
    model = build(len(dataset.vocabulary), preset)
    if preset.warm_start and is_first():
        warm_start(model, dataset.split.train, seed)
    return model.to(device or best_device())


def fit(
    model: BERT4Rec,
    dataset: Dataset,
    *,
    seed: int = 0,
    folder: str | Path | None = None,
    on_epoch: Callable[[Run], None] | None = None,
    on_step: Callable[[Run, Batch], None] | None = None,
) -> pd.DataFrame:
    """Train `model` in place, as its preset says, and leave it with the weights of the best validation NDCG@10.

    Returns one row per epoch: epoch, loss (mean cross-entropy, nats per question), learning_rate, hit@10 and ndcg@10
    (validation, full ranking), seconds (since the start). With a `folder`, the best epoch
    is kept there for `load`, with the weight of counting in its mixture, and a run that was interrupted goes on
    from its last epoch; a finished model that lies there is moved to a subfolder. `on_step` is called after each batch,
    `on_epoch` after each epoch. Of several processes (processes.py) the first one writes.
    ValueError if the folder holds the unfinished run of other settings or data, or if another training is at work in
    it, FloatingPointError if the loss is no number; what the folder holds is kept.
    """
    run = Run(model, dataset, seed)
    folder = Path(folder) if folder else None
    with locked(folder):
        if folder:
            run.load(folder / UNFINISHED)
        train_to_the_end(run, folder, on_epoch, on_step)
        model.load_state_dict(run.best_weights)
        if folder and is_first():
            finish(run, folder)
    return pd.DataFrame(run.history)


@contextlib.contextmanager
def locked(folder: Path | None) -> Iterator[None]:
    """Nobody else trains into `folder` meanwhile; the system unlocks it when the process ends, however it ends."""
    if not folder or not is_first():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / LOCK, timeout=0):
            for partial in folder.glob("*.partial"):
                partial.unlink()  # of a process that was killed while it wrote
            yield
    except filelock.Timeout:
        raise ValueError(f"another training is at work in {folder}; wait for it, or choose another folder") from None


def train_to_the_end(run: Run, folder: Path | None, on_epoch: Callable | None, on_step: Callable | None) -> None:
    """Epoch after epoch, until the run is over."""
    together = f" in {count()} processes" if count() > 1 else ""
    say(
        f"Training on {run.model.device}{together} in {'bfloat16' if run.is_bfloat16 else 'float32'}: up to "
        f"{run.preset.epochs} epochs of {run.steps} batches, {run.model.item_count:,} items; the time left is known "
        "after the first epoch."
    )
    bar = progress_bar(initial=len(run.history), total=run.preset.epochs, desc="epochs", unit="epoch")
    before = run.history[-1]["seconds"] if run.history else 0.0
    started = time.perf_counter()
    while not run.is_over():
        epoch = {"epoch": len(run.history) + 1, "loss": run.train_epoch(on_step)}
        epoch |= {"learning_rate": run.schedule.get_last_lr()[0]} | run.validate()
        run.history.append(epoch | {"seconds": before + time.perf_counter() - started})
        if is_first():
            if folder:
                keep(run, folder)
            bar.update()
            report(run, bar)
        if on_epoch:
            on_epoch(run)
    bar.close()


def finish(run: Run, folder: Path) -> None:
    """Add the weight of counting to the model of a run that is over, which needs nothing else any more."""
    model = run.model
    mixture = learn_mixture(model, counting_model(run.dataset.split.train, model.item_count), run.holdout)
    path = save(folder, replace(run.checkpoint(), counting_weight=mixture.weight))
    (folder / UNFINISHED).unlink()
    say(f"The model lies in {short(path)}.")


def keep(run: Run, folder: Path) -> None:
    """Write what the last epoch has brought.

    A model in the folder is that of a finished run, unless UNFINISHED lies beside it: the first epoch sets it aside.
    """
    try:
        if len(run.history) == 1 and (place := set_aside(folder)):
            say(f"The finished model in {short(folder)} is moved to {short(place)}.")
        run.save(folder / UNFINISHED)
        if run.best_epoch == len(run.history) - 1:
            save(folder, run.checkpoint())
    except OSError as error:
        raise OSError(
            f"cannot write to {folder} ({error.strerror}); make room there, and the same run goes on after the last "
            "epoch that was kept"
        ) from error


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
