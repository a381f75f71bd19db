"""The training loop: validation after each epoch, early stopping, checkpoints, resuming."""

import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from .evaluation import metrics, target_ranks
from .masking import batch_count, cloze_batches
from .model import BERT4Rec, ModelConfig
from .presets import Preset
from .sequences import Holdout, LeaveOneOut, Vocabulary
from .warm_start import warm_start

WEIGHTS, DESCRIPTION, UNFINISHED = "model.safetensors", "checkpoint.json", "unfinished.pt"


@dataclass(frozen=True)
class Checkpoint:
    """A trained model with what is needed to use it. `history` has a row an epoch, as `fit` returns it."""

    model: BERT4Rec
    vocabulary: Vocabulary
    preset: Preset
    seed: int
    history: pd.DataFrame

    def check(self, vocabulary: Vocabulary) -> None:
        """ValueError unless the data at hand has the very items the model was trained on."""
        if not np.array_equal(vocabulary.items, self.vocabulary.items):
            raise ValueError(
                f"the model was trained on {len(self.vocabulary):,} items of {self.preset.release}, but the data at "
                f"hand has {len(vocabulary):,}, not the same ones; train again on this data"
            )


def best_device() -> torch.device:
    """CUDA, then Apple's MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def new_model(split: LeaveOneOut, vocabulary: Vocabulary, preset: Preset, seed: int = 0, warm: bool = True) -> BERT4Rec:
    """An untrained model of the preset's shape, on the best device; `warm` starts it from co-occurrence counts."""
    torch.manual_seed(seed)
    config = ModelConfig(
        len(vocabulary), preset.history_length, preset.width, preset.layers, preset.heads, preset.dropout
    )
    model = BERT4Rec(config)
    if warm:
        warm_start(model, split.train, seed)
    return model.to(best_device())


def fit(
    model: BERT4Rec,
    split: LeaveOneOut,
    vocabulary: Vocabulary,
    preset: Preset,
    *,
    seed: int = 0,
    folder: str | Path | None = None,
) -> pd.DataFrame:
    """Train `model` in place and leave it with the weights of the epoch of the best validation NDCG@10.

    Returns a row an epoch: epoch, loss (mean cross-entropy, nats a question), learning_rate, hit@10 and ndcg@10
    (validation, full ranking), seconds (of training and validation since the start). With a `folder`, the best epoch
    is kept there for `load`, a run that was interrupted goes on from its last epoch, and a finished run that lies there
    is moved to its subfolder `previous`. ValueError if the folder holds the unfinished run of other settings or data.
    """
    if preset.epochs < 1:
        raise ValueError(f"epochs is {preset.epochs}; train for at least one")
    optimizer = torch.optim.AdamW(
        parameter_groups(model, preset.weight_decay), lr=preset.learning_rate, betas=(0.9, 0.98)
    )
    steps = batch_count(split.train, preset)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(preset, steps))
    holdout = sample_holdout(split.validation, preset.validation_users, seed)
    history, best_state = [], None
    folder = folder and Path(folder)
    if folder and (folder / UNFINISHED).exists():
        history, best_state = resume(folder, model, optimizer, schedule, vocabulary, preset, seed)
    elif folder:
        set_aside(folder)
    tqdm.write(
        f"Training on {model.device}: up to {preset.epochs} epochs of {steps} batches, {len(vocabulary):,} items; "
        "the bar tells the time left after the first epoch."
    )
    bar = tqdm(
        range(len(history), preset.epochs), initial=len(history), total=preset.epochs, desc="epochs", unit="epoch"
    )
    before = history[-1]["seconds"] if history else 0.0
    started = time.perf_counter()
    for epoch in bar:
        loss = train_epoch(model, split, preset, optimizer, schedule, seed, epoch)
        found = metrics(target_ranks(model, holdout, ["full"], progress=False)["full"], [10])
        history.append(
            {
                "epoch": epoch + 1,
                "loss": loss,
                "learning_rate": schedule.get_last_lr()[0],
                "hit@10": found["hit@10"],
                "ndcg@10": found["ndcg@10"],
                "seconds": before + time.perf_counter() - started,
            }
        )
        bar.set_postfix(loss=f"{loss:.3f}", ndcg=f"{found['ndcg@10']:.4f}")
        best = max(range(len(history)), key=lambda row: history[row]["ndcg@10"])
        if best == epoch:
            best_state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
            if folder:
                save(folder, Checkpoint(model, vocabulary, preset, seed, pd.DataFrame(history)))
        if folder:
            save_progress(folder, model, optimizer, schedule, vocabulary, preset, seed, history, best_state)
        if epoch - best >= preset.patience:
            break
    model.load_state_dict(best_state)
    if folder:
        save(folder, Checkpoint(model, vocabulary, preset, seed, pd.DataFrame(history)))
        (folder / UNFINISHED).unlink()
    return pd.DataFrame(history)


def train_epoch(model, split, preset, optimizer, schedule, seed, epoch) -> float:
    """One pass over the training sequences; the mean loss. All its randomness comes from (seed, epoch)."""
    torch.manual_seed(seed * 100_003 + epoch)
    batches = cloze_batches(split.train, model.mask_token, preset, np.random.default_rng([seed, epoch]))
    model.train()
    losses = []
    for batch in tqdm(batches, total=batch_count(split.train, preset), desc=f"epoch {epoch + 1}", leave=False):
        loss = model.loss(batch.to(model.device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    mean = torch.stack(losses).mean().item()
    if not math.isfinite(mean):
        raise FloatingPointError(f"the loss is {mean} in epoch {epoch + 1}; lower the learning rate and start again")
    return mean


def parameter_groups(model: BERT4Rec, weight_decay: float) -> list[dict]:
    """Weight decay for matrices only: not for biases and layer norms."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def warmup_cosine(preset: Preset, steps: int):
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


def save(folder: str | Path, checkpoint: Checkpoint) -> None:
    """Write the weights as safetensors and the rest as JSON; each file is complete or not there at all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous() for name, value in checkpoint.model.state_dict().items()}
    description = {
        "preset": asdict(checkpoint.preset),
        "seed": checkpoint.seed,
        "model": asdict(checkpoint.model.config),
        "history": checkpoint.history.to_dict("records"),
        "items": checkpoint.vocabulary.items.tolist(),
    }
    replace_file(folder / WEIGHTS, lambda path: save_file(weights, path))
    replace_file(folder / DESCRIPTION, lambda path: path.write_text(json.dumps(description)))


def load(folder: str | Path) -> Checkpoint:
    """Read what `save` wrote, onto the best device. FileNotFoundError or ValueError say what to do about it."""
    folder = Path(folder)
    for name in (WEIGHTS, DESCRIPTION):
        if not (folder / name).exists():
            raise FileNotFoundError(
                f"{folder} holds no trained model ({name} is missing); run notebook 03, or "
                "python -m bertrec_utils train --preset PRESET --out DIR"
            )
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
        model = BERT4Rec(ModelConfig(**description["model"]))
        model.load_state_dict(load_file(folder / WEIGHTS))
        preset = Preset(**description["preset"])
        vocabulary = Vocabulary(np.array(description["items"]))
    except Exception as error:
        raise ValueError(f"{folder} does not hold a model of this version ({error}); train it again") from error
    history = pd.DataFrame(description["history"])
    return Checkpoint(model.to(best_device()), vocabulary, preset, description["seed"], history)


def set_aside(folder: Path) -> None:
    """Move the finished run in `folder`, if there is one, to `folder/previous`."""
    finished = [folder / name for name in (WEIGHTS, DESCRIPTION) if (folder / name).exists()]
    if finished:
        (folder / "previous").mkdir(exist_ok=True)
        tqdm.write(f"The finished run in {folder.name} is moved to its subfolder previous.")
    for path in finished:
        os.replace(path, folder / "previous" / path.name)


def save_progress(folder, model, optimizer, schedule, vocabulary, preset, seed, history, best_state):
    """Write all that `resume` needs."""
    settings = {"preset": asdict(preset), "seed": seed, "items": vocabulary.items.tolist()}
    progress = {"history": history, "best_state": best_state}
    states = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
    replace_file(folder / UNFINISHED, lambda path: torch.save(settings | progress | states, path))


def resume(folder, model, optimizer, schedule, vocabulary, preset, seed):
    """Load the unfinished run of the same preset, seed and items in `folder`; its history and best weights."""
    path = folder / UNFINISHED
    try:
        progress = torch.load(path, map_location=model.device, weights_only=True)
        found = progress["preset"], progress["seed"], progress["items"]
    except Exception as error:
        raise ValueError(f"{path} cannot be read ({type(error).__name__}); delete it to start over") from error
    if found != (asdict(preset), seed, vocabulary.items.tolist()):
        raise ValueError(
            f"{folder} holds the unfinished run of other settings or data (preset {found[0]['name']}, seed {found[1]}, "
            f"{len(found[2]):,} items); choose another folder or delete {path}"
        )
    for name, part in (("model", model), ("optimizer", optimizer), ("schedule", schedule)):
        part.load_state_dict(progress[name])
    tqdm.write(f"Going on with the run in {folder} after epoch {len(progress['history'])}.")
    return progress["history"], progress["best_state"]


def replace_file(path: Path, write) -> None:
    """Write a file under another name, then rename it: readers see the old one or the new one, never a part."""
    partial = path.with_name(path.name + ".partial")
    write(partial)
    os.replace(partial, path)
