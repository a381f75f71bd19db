"""Train a model of RecTools, RecBole or ours, in an environment of its own; peers.py starts it there.

    PYTHONPATH=PROJECT python peer_worker.py FOLDER

What is asked is in FOLDER, and then what is found. Our evaluator takes nothing that the libraries' environments lack.
"""

import contextlib
import copy
import os
import pickle
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from bertrec_utils.data.sequences import Sequences, Split, Vocabulary
from bertrec_utils.evaluation.ranking import evaluate, target_ranks

WARM_UP_STEPS, SEED = 3, 0
LOWEST = float(np.finfo(np.float32).min)  # the score of an item that the library has not seen in training


def speed(train: Callable, seconds: float) -> dict[str, float]:
    """Sequences per second of `train(on_step)`, which tells `on_step` how many each step had, for so many seconds after
    the first few steps; and the peak memory of the process (Linux), from reading the data on."""
    ends, counts = [], []

    def on_step(count):
        ends.append(time.perf_counter())
        counts.append(count)
        if len(ends) > WARM_UP_STEPS and ends[-1] - ends[WARM_UP_STEPS - 1] >= seconds:
            raise TimeoutError

    with contextlib.suppress(TimeoutError):
        train(on_step)
    rate = sum(counts[WARM_UP_STEPS:]) / (ends[-1] - ends[WARM_UP_STEPS - 1])
    status = Path("/proc/self/status").read_text()  # getrusage would count the parent's memory, too
    return {"sequences_per_second": rate, "peak_mb": int(status.split("VmHWM:")[1].split()[0]) / 1024}


def to_the_end(train: Callable, split: Split, epochs: int, patience: int) -> dict:
    """A row for each epoch of `train(on_epoch)`, and the ranks of the test by the weights of the best. `on_epoch` gets
    the network, the library's numbers (V + 1,) of our tokens, 0 for none, and what scores histories in them."""
    history, best, ranks, taken, started = [], {}, {}, 0.0, time.perf_counter()

    def on_epoch(network, numbers, score_numbers):
        nonlocal taken, started
        taken += time.perf_counter() - started

        def score(histories):
            rows = (numbers[histories[row]] for row in range(len(histories)))
            scores = score_numbers([row[row > 0].tolist() for row in rows]).numpy()
            return np.where(numbers[1:] > 0, scores[:, numbers[1:]], LOWEST)

        scorer = SimpleNamespace(score=score)
        found = evaluate(scorer, split.validation, ["full"], progress=False)["full"]
        history.append({"seconds": taken, "hit@10": found["hit@10"], "ndcg@10": found["ndcg@10"]})
        best_epoch = max(range(len(history)), key=lambda row: history[row]["ndcg@10"])
        since = len(history) - 1 - best_epoch
        if not since:
            best.update(copy.deepcopy(network.state_dict()))
        bar.set_postfix(ndcg=f"{found['ndcg@10']:.4f}", best=best_epoch + 1)
        bar.update()
        if is_over := len(history) == epochs or since == patience:
            network.load_state_dict(best)
            ranks.update(target_ranks(scorer, split.test, progress=False))
        started = time.perf_counter()
        return not is_over

    with tqdm(total=epochs, unit="epoch") as bar:
        train(on_epoch)
    return {"parameters": sum(map(torch.numel, best.values())), "history": history, "ranks": ranks}


def log_of(sequences: Sequences, *columns: str) -> pd.DataFrame:
    """A row for each item: user, token, and as its time its position."""
    users = sequences.token_rows
    times = np.arange(len(users)) - np.repeat(sequences.offsets[:-1], sequences.lengths)
    return pd.DataFrame(dict(zip(columns, (users, sequences.tokens.astype(int), times), strict=True)))


def train_rectools(job: dict, split: Split, on_step: Callable, on_epoch: Callable) -> None:
    from pytorch_lightning import Callback, Trainer
    from rectools import models
    from rectools.dataset import Dataset

    class Watch(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_index):
            on_step(len(batch["x"]))

        def on_train_epoch_end(self, trainer, module):
            preparator, numbers = module.data_preparator, np.zeros(job["items"] + 1, dtype=int)
            numbers[preparator.get_known_item_ids().astype(int)] = preparator.get_known_items_sorted_internal_ids()

            def score(sessions):
                batch = preparator._collate_fn_recommend([(session or [0], [], {}) for session in sessions])
                users, items = module._get_user_item_embeddings([batch], "cpu")
                module.torch_model.train()
                return users @ items.T

            trainer.should_stop = not on_epoch(module.torch_model, numbers, score)

    def trainer():
        silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        return Trainer(max_epochs=-1, accelerator="cpu", callbacks=[Watch()], **dict.fromkeys(silent, False))

    torch.manual_seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002 - RecTools draws its masks from this one
    model = getattr(models, f"{job['model']}Model")(get_trainer_func=trainer, **job["settings"])
    model.fit(Dataset.construct(log_of(split.train, "user_id", "item_id", "datetime").assign(weight=1)))


def train_recbole(job: dict, split: Split, on_step: Callable, on_epoch: Callable) -> None:
    from recbole.config import Config
    from recbole.data import create_dataset
    from recbole.data.utils import get_dataloader
    from recbole.utils import get_model, get_trainer, init_seed

    Path("log").mkdir()
    log_of(split.train, "user_id:token", "item_id:token", "timestamp:float").to_csv("log/log.inter", "\t", index=False)
    own = {"data_path": os.getcwd(), "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "use_gpu": False}
    own |= {"state": "ERROR", "train_neg_sample_args": None}  # the loss is over all items
    config = Config(model=job["model"], dataset="log", config_dict=own | job["settings"])
    init_seed(SEED, reproducibility=True)
    dataset = create_dataset(config)
    dataset._change_feat_format()  # a row for each prefix; it is not split, for nothing in it is held out
    batches = get_dataloader(config, "train")(config, dataset, None, shuffle=True)
    network = get_model(job["model"])(config, dataset)
    numbers = np.array([dataset.field2token_id["item_id"].get(str(token), 0) for token in range(job["items"] + 1)])

    @torch.inference_mode()
    def score(sessions):
        rows = torch.zeros(len(sessions), config["MAX_ITEM_LIST_LENGTH"], dtype=torch.int64)
        for row, items in zip(rows, sessions, strict=True):
            row[: len(items)] = torch.tensor(items[-len(row) :])  # the newest, if not all have room
        network.eval()  # every epoch begins with train()
        return network.full_sort_predict({"item_id_list": rows, "item_length": (rows > 0).sum(1)})

    def watched():
        for batch in batches:
            yield batch
            on_step(len(batch))

    trainer, epoch = get_trainer(config["MODEL_TYPE"], config["model"])(config, network), 0
    while not epoch or on_epoch(network, numbers, score):
        trainer._train_epoch(watched(), epoch)
        epoch += 1


def train_bertrec_utils(job: dict, split: Split, on_step: Callable, on_epoch: Callable) -> None:
    from bertrec_utils.data.dataset import Dataset
    from bertrec_utils.settings import get_preset
    from bertrec_utils.training.trainer import Trainer, new_model

    settings = get_preset(recipe=job["model"]).change(**job["settings"])
    dataset = Dataset(Vocabulary(np.arange(job["items"]) + 1), split.train, other_split=split)
    trainer = Trainer(new_model(dataset, settings, SEED), dataset, settings, SEED, verbose=False)
    while True:  # only its speed is asked for
        trainer.train_epoch(lambda _, batch: on_step(len(batch.masked.history)))


def main() -> None:
    os.chdir(sys.argv.pop())  # RecBole reads the command line, and leaves files where it runs
    warnings.simplefilter("ignore")
    job, split = pickle.loads(Path("job").read_bytes())
    train = partial(globals()[f"train_{job['library']}"], job, split)
    if "seconds" in job:
        found = speed(partial(train, on_epoch=lambda *_: True), job["seconds"])
    else:
        found = to_the_end(partial(train, lambda _: None), split, job["epochs"], job["patience"])
    Path("found").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main()
