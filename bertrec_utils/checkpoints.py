"""Trained models on disk: one safetensors file a model, with its vocabulary, settings and history inside."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.torch
import torch

from .dataset import Dataset, load_dataset
from .files import PROJECT, move_file, replace_file, short
from .mixture import Mixture, counting_model
from .model import BERT4Rec
from .paper import PaperBERT4Rec, network
from .presets import Preset
from .sequences import Vocabulary

MODEL = "model.safetensors"
NO_SUM = "0" * 64  # stands where the checksum of the file will stand, while it is computed


@dataclass(frozen=True)
class Checkpoint:
    """A trained model with what is needed to use it."""

    model: BERT4Rec | PaperBERT4Rec  # its settings are `model.preset`
    vocabulary: Vocabulary
    seed: int
    history: pd.DataFrame  # one row per epoch, as `fit` returns it
    fingerprint: dict[str, str]  # `Dataset.fingerprint` of what it was trained on
    counting_weight: float | None = None  # of counting in the `Mixture`, learned on validation data

    def check(self, dataset: Dataset) -> None:
        """ValueError unless `dataset` is what the model was trained on."""
        for part, digest in self.fingerprint.items():
            if dataset.fingerprint[part] != digest:
                log = self.model.preset.ratings_file or self.model.preset.release
                raise ValueError(
                    f"the model was trained on other {part} than the data at hand ({len(self.vocabulary):,} items of "
                    f"{log}; at hand: {len(dataset.vocabulary):,}); use that data, or train again on this"
                )

    def with_counting(self, dataset: Dataset) -> Mixture:
        """The model mixed with what is counted in `dataset`, which must be what it was trained on.

        ValueError if the run was not finished, so that the weight is not known.
        """
        if self.counting_weight is None:
            raise ValueError("the model's run is not finished; go on with it, or use the transformer alone")
        return Mixture(self.model, counting_model(dataset.split.train, len(self.vocabulary)), self.counting_weight)

    def load_dataset(self, **log: str) -> Dataset:
        """The data the model was trained on, read again. ValueError if it has changed since.

        `log` gives the files of an own log that has moved: `ratings_file`, `items_file`.
        """
        dataset = load_dataset(replace(self.model.preset, **log))
        self.check(dataset)
        return dataset


def best_device() -> torch.device:
    """CUDA, then Apple's MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def save(folder: str | Path, checkpoint: Checkpoint) -> Path:
    """Write the checkpoint into `folder`, wholly or not at all; the path of its file."""
    path = Path(folder) / MODEL
    path.parent.mkdir(parents=True, exist_ok=True)
    description = {
        "preset": asdict(checkpoint.model.preset),
        "seed": checkpoint.seed,
        "history": checkpoint.history.to_dict("records"),
        "fingerprint": checkpoint.fingerprint,
        "counting_weight": checkpoint.counting_weight,
        "items": checkpoint.vocabulary.items.tolist(),
    }
    weights = {name: value.cpu().contiguous() for name, value in checkpoint.model.state_dict().items()}
    content = safetensors.torch.save(weights, {"bertrec": json.dumps(description), "sha256": NO_SUM})
    digest = hashlib.sha256(content).hexdigest()
    content = content.replace(NO_SUM.encode(), digest.encode(), 1)
    replace_file(path, lambda partial: partial.write_bytes(content))
    return path


def load(folder: str | Path) -> Checkpoint:
    """Read what `save` wrote, onto the best device.

    FileNotFoundError if there is nothing, ValueError if the file is damaged or of another version.
    """
    path = Path(folder) / MODEL
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no trained model ({MODEL} is missing); run notebook 03, or "
            "python -m bertrec_utils train --preset PRESET --out DIR"
        )
    content = path.read_bytes()
    try:
        metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        description, digest = json.loads(metadata["bertrec"]), metadata["sha256"]
        if hashlib.sha256(content.replace(digest.encode(), NO_SUM.encode(), 1)).hexdigest() != digest:
            raise ValueError("its checksum is wrong")
        vocabulary = Vocabulary(np.array(description["items"]))
        known = {name: description[name] for name in ("seed", "fingerprint", "counting_weight")}
        model = network(len(vocabulary), Preset(**description["preset"]))
        model.load_state_dict(safetensors.torch.load(content))
    except Exception as error:  # whatever a damaged file makes of a header, a JSON text or a tensor
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is damaged or of another version ({reason}); train it again") from error
    history = pd.DataFrame(description["history"])
    return Checkpoint(model.to(best_device()), vocabulary, history=history, **known)


def load_trained(preset: Preset, recipe: str = "ours") -> Checkpoint:
    """The reader's own run of a preset in runs/, else the weights that come with the project; says which.

    FileNotFoundError if there is neither.
    """
    suffix = "" if recipe == "ours" else f"-{recipe}"
    own = PROJECT / "runs" / f"{preset.name}{suffix}"
    shipped = PROJECT / "pretrained" / f"{preset.release}{suffix}"
    is_whole_release = not (preset.max_users or preset.ratings_file)
    if not (own / MODEL).exists() and is_whole_release and (shipped / MODEL).exists():
        print(f"{recipe}: the weights that come with the project, {short(shipped)}; notebook 3 trains your own")
        return load(shipped)
    checkpoint = load(own)
    print(f"{recipe}: your own run, {short(own)}")
    return checkpoint


def set_aside(folder: Path) -> Path | None:
    """Move the model in `folder`, if there is one, to the first free of its subfolders previous-1, previous-2, ..."""
    if not (folder / MODEL).exists():
        return None
    number = 1
    while (folder / f"previous-{number}" / MODEL).exists():
        number += 1
    move_file(folder / MODEL, folder / f"previous-{number}" / MODEL)
    return folder / f"previous-{number}"
