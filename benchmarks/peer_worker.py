"""Train SASRec or BERT4Rec of RecTools or RecBole, in that library's environment; peers.py starts it there.

    python peer_worker.py FOLDER

FOLDER holds what `peers.start` has written: job.json and sequences.npz, training sequences and test histories of tokens
1..V, no targets. After each epoch scores.npy has the scores (U, V) of all items after each training sequence, and one
line of JSON goes each way: seconds of training out; whether that epoch was the best, and whether it was the last, in.
After the last, scores.npy has the scores after the test histories, by the weights of the best epoch. If the job has
`seconds`, there are no scores, and the speed of the training steps goes out.

Nothing of this project is needed, only what comes with either library.
"""

import contextlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

WARM_UP_STEPS = 3
SCORED = 256  # histories at a time
LOWEST = float(np.finfo(np.float32).min)  # of an item that the library has not seen in training

Histories = list[np.ndarray]
OnStep = Callable[[int], None]  # told how many sequences the step had
OnEpoch = Callable[[torch.nn.Module, Callable[[Histories], np.ndarray]], bool]  # network, scores (B, V); goes on?


class TimeIsUp(Exception):
    pass


def speed(train: Callable[[OnStep], object], seconds: float) -> dict[str, float]:
    """Sequences per second of the steps of `train`, for so many seconds after the first few, and the process's peak
    memory so far: reading and preparing the data, too."""
    ends, sequences = [], []

    def on_step(count: int) -> None:
        ends.append(time.perf_counter())
        sequences.append(count)
        if len(ends) > WARM_UP_STEPS and ends[-1] - ends[WARM_UP_STEPS - 1] >= seconds:
            raise TimeIsUp

    with contextlib.suppress(TimeIsUp):
        train(on_step)
    taken = ends[-1] - ends[WARM_UP_STEPS - 1]
    return {"sequences_per_second": sum(sequences[WARM_UP_STEPS:]) / taken, "peak_mb": peak_mb()}


def peak_mb() -> float:
    status = Path("/proc/self/status").read_text()  # Linux; getrusage would count the parent's memory, too
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def log_of(histories: Histories) -> pd.DataFrame:
    """A row for each item; its time is its position."""
    lengths = [len(history) for history in histories]
    positions = np.concatenate([np.arange(length) for length in lengths])
    users = np.repeat(np.arange(len(histories)), lengths)
    return pd.DataFrame({"user_id": users, "item_id": np.concatenate(histories).astype(int), "datetime": positions})


def by_token(scores: torch.Tensor, numbers: np.ndarray) -> np.ndarray:
    """The library's scores (B, N) as ours, (B, V). `numbers` (V + 1,): its number of each token, 0 if it has none."""
    return np.where(numbers[1:] > 0, scores.numpy()[:, numbers[1:]], LOWEST)


def train_rectools(job: dict[str, Any], histories: Histories, on_step: OnStep, on_epoch: OnEpoch) -> None:
    from pytorch_lightning import Callback, Trainer
    from rectools.dataset import Dataset
    from rectools.models import BERT4RecModel, SASRecModel

    class Watch(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_index):
            on_step(len(batch["x"]))

        def on_train_epoch_end(self, trainer, module):
            prepared = module.data_preparator
            tokens = np.arange(1, job["item_count"] + 1)
            known = np.isin(tokens, prepared.get_known_item_ids())
            numbers = np.zeros(len(tokens) + 1, dtype=int)
            numbers[1:][known] = prepared.item_id_map.convert_to_internal(tokens[known])

            def score(histories: Histories) -> np.ndarray:
                sessions = [[number for number in numbers[history].tolist() if number] for history in histories]
                batch = prepared._collate_fn_recommend([(session or [0], [], {}) for session in sessions])
                users, items = module._get_user_item_embeddings([batch], "cpu")
                module.torch_model.train()
                return by_token(users @ items.T, numbers)

            trainer.should_stop = not on_epoch(module.torch_model, score)

    def trainer() -> Trainer:
        shown = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        return Trainer(max_epochs=-1, accelerator="cpu", callbacks=[Watch()], **dict.fromkeys(shown, False))

    settings = job["settings"]
    kind = {"SASRec": SASRecModel, "BERT4Rec": BERT4RecModel}[job["model"]]
    torch.manual_seed(settings["seed"])
    np.random.seed(settings["seed"])  # noqa: NPY002 - RecTools draws its masks from this one
    model = kind(
        n_factors=settings["width"],
        n_blocks=settings["layers"],
        n_heads=settings["heads"],
        session_max_len=settings["max_length"],
        dropout_rate=settings["dropout"],
        batch_size=settings["batch_size"],
        lr=settings["learning_rate"],
        get_trainer_func=trainer,
        **({"mask_prob": settings["mask_ratio"]} if "mask_ratio" in settings else {}),
    )
    model.fit(Dataset.construct(log_of(histories).assign(weight=1)))


def train_recbole(job: dict[str, Any], histories: Histories, on_step: OnStep, on_epoch: OnEpoch) -> None:
    from recbole.config import Config
    from recbole.data import create_dataset
    from recbole.data.utils import get_dataloader
    from recbole.utils import get_model, get_trainer, init_seed

    settings = job["settings"]
    Path("log").mkdir()
    columns = ["user_id:token", "item_id:token", "timestamp:float"]
    log_of(histories).set_axis(columns, axis=1).to_csv("log/log.inter", sep="\t", index=False)
    its_settings = {
        "data_path": os.getcwd(),
        "load_col": {"inter": [column.split(":")[0] for column in columns]},
        "use_gpu": False,
        "state": "ERROR",
        "train_neg_sample_args": None,  # the loss is over all items
        "hidden_size": settings["width"],
        "inner_size": 4 * settings["width"],
        "n_layers": settings["layers"],
        "n_heads": settings["heads"],
        "MAX_ITEM_LIST_LENGTH": settings["max_length"],
        "hidden_dropout_prob": settings["dropout"],
        "attn_dropout_prob": settings["dropout"],
        "train_batch_size": settings["batch_size"],
        "learning_rate": settings["learning_rate"],
        **({"mask_ratio": settings["mask_ratio"]} if "mask_ratio" in settings else {}),
    }
    config = Config(model=job["model"], dataset="log", config_dict=its_settings)
    init_seed(settings["seed"], reproducibility=True)
    dataset = create_dataset(config)
    dataset._change_feat_format()  # a row for each prefix; its own split leaves validation items of short users in
    batches = get_dataloader(config, "train")(config, dataset, None, shuffle=True)
    network = get_model(job["model"])(config, dataset)
    known = dataset.field2token_id["item_id"]
    numbers = np.array([0, *(known.get(str(token), 0) for token in range(1, job["item_count"] + 1))])

    @torch.inference_mode()
    def score(histories: Histories) -> np.ndarray:
        rows = np.zeros((len(histories), settings["max_length"]), dtype=np.int64)
        for row, history in zip(rows, histories, strict=True):
            read = numbers[history[numbers[history] > 0]][-len(row) :]
            row[: len(read)] = read
        rows = torch.from_numpy(rows)
        network.eval()  # each epoch begins with train()
        scores = network.full_sort_predict({"item_id_list": rows, "item_length": (rows > 0).sum(1)})
        return by_token(scores, numbers)

    def watched() -> Iterator:
        for batch in batches:
            yield batch
            on_step(len(batch))

    trainer, epoch, goes_on = get_trainer(config["MODEL_TYPE"], config["model"])(config, network), 0, True
    while goes_on:
        trainer._train_epoch(watched(), epoch)
        epoch, goes_on = epoch + 1, on_epoch(network, score)


LIBRARIES = {"rectools": train_rectools, "recbole": train_recbole}


def write_scores(score: Callable[[Histories], np.ndarray], histories: Histories, item_count: int) -> None:
    """Write scores.npy, (U, V) float32."""
    scores = np.lib.format.open_memmap("scores.npy", "w+", np.float32, (len(histories), item_count))
    for start in range(0, len(histories), SCORED):
        scores[start : start + SCORED] = score(histories[start : start + SCORED])
    scores.flush()


def main() -> None:
    os.chdir(sys.argv.pop())  # RecBole reads the command line, and leaves logs where it runs
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print is no answer
    warnings.simplefilter("ignore")
    job = json.loads(Path("job.json").read_text())
    with np.load("sequences.npz") as arrays:
        train, test = (np.split(arrays[name], arrays[f"{name}_offsets"][1:-1]) for name in ("train", "test"))
    run, best, taken, started = LIBRARIES[job["library"]], {}, 0.0, time.perf_counter()

    def tell(**message: Any) -> None:
        print(json.dumps(message), file=out, flush=True)

    def on_epoch(network: torch.nn.Module, score: Callable[[Histories], np.ndarray]) -> bool:
        nonlocal best, taken, started
        taken += time.perf_counter() - started
        write_scores(score, train, job["item_count"])
        tell(seconds=taken)
        reply = json.loads(sys.stdin.readline())
        if reply["is_best"]:
            best = {name: value.clone() for name, value in network.state_dict().items()}
        if reply["is_last"]:
            network.load_state_dict(best)
            write_scores(score, test, job["item_count"])
            parameters = sum(parameter.numel() for parameter in network.parameters())
            versions = {name: version(name) for name in (job["library"], "torch", "numpy")}
            tell(versions=versions, parameters=parameters, peak_mb=peak_mb())
        started = time.perf_counter()
        return not reply["is_last"]

    if job["seconds"]:
        tell(**speed(lambda on_step: run(job, train, on_step, lambda *_: True), job["seconds"]))
    else:
        run(job, train, lambda _: None, on_epoch)


if __name__ == "__main__":
    main()
