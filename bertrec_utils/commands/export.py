"""python -m bertrec_utils export"""

import argparse
import copy
import io
import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..common import progress_bar, replace_file
from ..data.sequences import Sequences, Vocabulary
from ..model.bert4rec import BERT4Rec
from ..model.layers import Network, evaluating
from ..model.masking import MaskedBatch
from ..training.checkpoints import load
from . import check_no_input, check_output, files_of, log_arguments, own_log


def add_export(commands: "argparse._SubParsersAction") -> None:
    what = "vectors for a nearest-neighbour search, or the network as ONNX"
    export = commands.add_parser("export", parents=[log_arguments(titles=False)], help=what)
    export.add_argument("folder", type=Path, metavar="DIR", help="folder of a trained model")
    vectors = "write item, vector, bias: an .npz"
    export.add_argument("--items", dest="item_vectors", type=Path, metavar="FILE", help=vectors)
    users = "write user, vector, after each user's whole history: an .npz"
    export.add_argument("--users", type=Path, metavar="FILE", help=users)
    network = "write the network: from a history of tokens to the scores of all items"
    export.add_argument("--onnx", type=Path, metavar="FILE", help=network)
    export.set_defaults(run=export_command, items=None)  # no titles are needed


def user_vectors(model: Network, histories: Sequences, batch_size: int = 256) -> np.ndarray:
    """User vectors (U, width) float32: user vector @ item vector + item bias is the score of `Network.score`."""
    vectors = np.empty((len(histories), model.settings.width), np.float32)
    order = np.argsort(histories.lengths)  # histories of a length need no padding
    with torch.inference_mode(), evaluating(model):
        for start in progress_bar(range(0, len(order), batch_size), desc="users", leave=False):
            rows = order[start : start + batch_size]
            vectors[rows] = model.user_vectors(histories.rows(rows)).float().cpu().numpy()
    return vectors


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write an .npz file, atomically; object arrays become fixed-width strings, so it loads with allow_pickle=False."""
    parts: dict[str, Any] = {name: part.astype(str) if part.dtype == object else part for name, part in arrays.items()}
    np.savez(content := io.BytesIO(), **parts)
    replace_file(path, lambda partial: partial.write_bytes(content.getbuffer()))


class NextItemScores(nn.Module):
    """What `Network.score` computes, from tokens in one pass, for any number of histories of any length."""

    def __init__(self, model: Network):
        super().__init__()
        self.model: Any = model  # of either kind

    def forward(self, history: Tensor) -> Tensor:
        """Scores (B, V) of every item after each `history` (B, T) int64: tokens, padded on the left with PAD."""
        model, after = self.model, torch.full_like(history[:, :1], history.shape[1])
        if isinstance(model, BERT4Rec):
            return model.logits(model.encode(F.pad(history, (0, 1), value=model.mask_token))[:, -1])
        until = torch.arange(1, history.shape[1] + 1) if model.settings.causal else after
        batch = MaskedBatch(history, until.expand_as(history), after, after, torch.zeros_like(after))
        return model.logits(model.encode(*model.embed(batch))[:, 0])


def write_onnx(path: Path, model: Network, vocabulary: Vocabulary) -> None:
    """Write `model` with input `history` (batch, length) and output `scores` (batch, V), as `NextItemScores` has them,
    wholly or not at all. The metadata of the file hold `items`, a JSON list of the ids of the columns of the scores
    (token - 1), and `max_length`, of how many tokens a history may be. ValueError if this PyTorch cannot."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of libraries that nothing here needs
    network, example = NextItemScores(copy.deepcopy(model).cpu()).eval(), torch.ones(2, 9, dtype=torch.int64)
    options: dict[str, Any] = {"input_names": ["history"], "output_names": ["scores"], "dynamo": True, "verbose": False}
    try:
        with warnings.catch_warnings(action="ignore"):  # of PyTorch's own deprecated parts
            program = torch.onnx.export(network, (example,), dynamic_shapes=({0: "batch", 1: "length"},), **options)
    except torch.onnx.OnnxExporterError as error:
        problem = f"PyTorch {torch.__version__} cannot write this network as ONNX"
        raise ValueError(f"{problem}; use PyTorch 2.13, with which this is tested") from error
    assert program is not None  # as it is with dynamo
    longest = model.settings.max_length - isinstance(model, BERT4Rec)  # whose [MASK] takes a position
    program.model.metadata_props.update({"items": json.dumps(vocabulary.items.tolist()), "max_length": str(longest)})
    replace_file(path, lambda partial: program.save(partial, external_data=False))


def export_command(arguments: argparse.Namespace) -> None:
    log = own_log(arguments)
    named = {"items": arguments.item_vectors, "users": arguments.users, "onnx": arguments.onnx}
    outputs = {name: path for name, path in named.items() if path}
    if not outputs:
        raise ValueError("name what to write: --items FILE.npz, --users FILE.npz or --onnx FILE.onnx")
    for name, path in outputs.items():
        check_output(f"--{name}", path, ".onnx" if name == "onnx" else ".npz")  # another might be a log or a model
    if {"items", "users"} <= set(outputs) and outputs["items"].resolve() == outputs["users"].resolve():
        raise ValueError(f"--items and --users are both {arguments.users}; name two files")
    if arguments.onnx:
        try:
            import onnxscript  # noqa: F401  # by which PyTorch writes ONNX
        except ImportError as error:
            raise ValueError(f"--onnx needs the extra onnx ({error}): pip install 'bertrec-utils[onnx]'") from error
    checkpoint = load(arguments.folder, arguments.device)
    for name, path in outputs.items():
        check_no_input(f"--{name}", path, files_of(checkpoint, log))
    model, items = checkpoint.model, checkpoint.vocabulary.items
    if arguments.item_vectors:
        embedding, bias = (part.detach().cpu().numpy() for part in (model.item_embedding.weight, model.item_bias))
        write_arrays(arguments.item_vectors, item=items, vector=embedding[1:-1], bias=bias)
        print(f"{arguments.item_vectors}: {len(items):,} items, vectors of {embedding.shape[1]} numbers and a bias")
    if arguments.users:
        histories, notes = checkpoint.load_histories(**log)
        for note in notes:
            print(note, file=sys.stderr)
        write_arrays(arguments.users, user=histories.users, vector=user_vectors(model, histories))
        print(f"{arguments.users}: {len(histories):,} users, a vector after the history of each")
    if arguments.onnx:
        write_onnx(arguments.onnx, model, checkpoint.vocabulary)
        print(f"{arguments.onnx}: from a history to the scores of {len(items):,} items")
