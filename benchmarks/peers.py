"""Train ModernTransformer with this package, RecTools or RecBole, on the same ratings, watched by the same clock.

train_speed.py and record_peers.py run this file, each library in an environment of its own:

    python benchmarks/peers.py {ours,rectools,recbole} --minutes M [--validate-every M]

A JSON line for each validation and one at the end: sequences trained on, seconds that took (without validation), peak
memory of the process in MB and, after a validation, its Hit@10 and NDCG@10 (full ranking).
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
import warnings
from dataclasses import replace
from pathlib import Path

PROJECT = Path(__file__).parents[1]
REQUIREMENTS = {
    "rectools": ["torch==2.13.0", "rectools[torch]==0.19.0"],
    "recbole": ["torch==2.13.0", "recbole==1.2.1", "numpy<2", "pandas<2.2", "scipy<1.13"],  # it needs the older ones
}
OUR_REQUIREMENTS = ["pooch", "rapidfuzz", "safetensors", "scikit-learn"]  # what reading and ranking need
SETTINGS = ("WIDTH", "LAYERS", "HEADS", "HISTORY", "BATCH", "DROPOUT", "MASK_RATIO")
WIDTH, LAYERS, HEADS, HISTORY, BATCH, DROPOUT, MASK_RATIO = 64, 2, 2, 200, 128, 0.2, 0.2


def python_of(library: str) -> str:
    """The interpreter of the library's environment under benchmarks/environments, made if it is not there."""
    if library == "ours":
        return sys.executable
    folder = PROJECT / "benchmarks" / "environments" / library
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        print(f"Installing {library} into {folder} ...", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *REQUIREMENTS[library], *OUR_REQUIREMENTS], check=True)
        (folder / "complete").touch()
    return str(python)


def versions_of(library: str) -> dict[str, str]:
    names = ["torch", "numpy", *([] if library == "ours" else [library])]
    code = f"from importlib.metadata import version; print(*map(version, {names}))"
    printed = subprocess.run([python_of(library), "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout
    return dict(zip(names, printed.split(), strict=True))


def run(library: str, minutes: float, validate_every: float | None = None) -> list[dict]:
    """The lines that `library` prints, as dictionaries."""
    command = [python_of(library), __file__, library, "--minutes", str(minutes)]
    if validate_every:
        command += ["--validate-every", str(validate_every)]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=PROJECT).stdout
    return [json.loads(line) for line in printed.splitlines() if line.startswith('{"sequences"')]


class TimeIsUp(Exception):
    pass


class Watch:
    """Told after each training step. The first steps warm up, unless quality is watched: then every second counts."""

    WARM_UP_STEPS = 3

    def __init__(self, minutes: float, validate_every: float | None, holdout):
        self.limit, self.every, self.holdout = 60 * minutes, validate_every and 60 * validate_every, holdout
        self.steps = self.sequences = 0
        self.seconds, self.next_validation = 0.0, self.every
        self.start()

    def start(self) -> None:
        self.last = time.perf_counter()

    def step(self, sequences: int, scorer) -> None:
        now = time.perf_counter()
        self.steps += 1
        if self.every or self.steps > self.WARM_UP_STEPS:
            self.sequences += sequences
            self.seconds += now - self.last
        over = self.seconds >= self.limit
        if self.every and (over or self.seconds >= self.next_validation):
            self.next_validation += self.every
            self.report(self.validate(scorer))
        elif over:
            self.report({})
        if over:
            raise TimeIsUp
        self.start()

    def validate(self, scorer) -> dict:
        from bertrec_utils.evaluation.ranking import evaluate

        return evaluate(scorer, self.holdout, ["full"], progress=False)["full"]

    def report(self, metrics: dict) -> None:
        status = Path("/proc/self/status").read_text()  # Linux; getrusage would count the parent's memory too
        kilobytes = int(status.split("VmHWM:")[1].split()[0])
        chosen = {name: metrics[name] for name in ("hit@10", "ndcg@10") if name in metrics}
        line = {"sequences": self.sequences, "seconds": self.seconds, "peak_mb": kilobytes / 1024} | chosen
        print(json.dumps(line), flush=True)


def our_preset():
    """As many questions as the others ask: `MASK_RATIO` of the places, in the prefix and after it.

    A constant learning rate and no validation to speak of: the watch validates.
    """
    from bertrec_utils.settings import get_preset

    return replace(
        get_preset("ml-1m"),
        width=WIDTH,
        layers=LAYERS,
        heads=HEADS,
        max_length=HISTORY,
        batch_size=BATCH,
        dropout=DROPOUT,
        mask_ratio=MASK_RATIO,
        next_ratio=MASK_RATIO,
        warmup_fraction=0.0,
        epochs=1_000_000,
        patience=1_000_000,
        validation_users=1,
    )


def train_ours(dataset, watch):
    from bertrec_utils.training.trainer import fit, new_model

    def on_step(run, batch):
        watch.step(len(batch.questions.history), run.model)

    model = new_model(dataset, our_preset())
    watch.start()
    fit(model, dataset, on_step=on_step, on_epoch=lambda run: watch.start())


def train_rectools(dataset, watch):
    import numpy as np
    import pandas as pd
    import torch
    from pytorch_lightning import Callback, Trainer
    from rectools.dataset import Dataset
    from rectools.models import BERT4RecModel

    item_count = len(dataset.vocabulary)

    class Scorer:
        def __init__(self, module):
            self.module, self.network = module, module.torch_model
            tokens = np.arange(1, item_count + 1)
            ids = module.data_preparator.item_id_map.convert_to_internal(tokens, strict=False, return_missing=True)
            self.known = ~np.isin(tokens, ids[1])
            self.columns = np.zeros(item_count + 1, dtype=int)  # token -> RecTools' number
            self.columns[1:][self.known] = ids[0]

        @torch.inference_mode()
        def score(self, histories):
            rows = np.zeros((len(histories), HISTORY), dtype=np.int64)
            for row, history in enumerate(histories):
                read = self.columns[history[1 - HISTORY :]]
                rows[row, -len(read) - 1 :] = [*read, self.module.data_preparator.extra_token_ids["MASK"]]
            self.network.eval()
            items = self.network.item_model.get_all_embeddings()
            scores = self.network.encode_sessions({"x": torch.from_numpy(rows)}, items)[:, -1] @ items.T
            self.network.train()
            return np.where(self.known, scores.numpy()[:, self.columns[1:]], -1e9)

    class Report(Callback):
        def on_train_start(self, trainer, module):
            self.scorer = Scorer(module)
            watch.start()

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_index):
            watch.step(len(batch["x"]), self.scorer)

    def trainer():
        return Trainer(
            max_epochs=-1,
            accelerator="cpu",
            callbacks=[Report()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    rows = log_of(dataset.split.train)
    rows["weight"] = 1
    rows["datetime"] = pd.Timestamp(2000, 1, 1) + pd.to_timedelta(rows.pop("time"), unit="s")
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - RecTools draws its masks from this one
    BERT4RecModel(
        n_blocks=LAYERS,
        n_heads=HEADS,
        n_factors=WIDTH,
        dropout_rate=DROPOUT,
        mask_prob=MASK_RATIO,
        session_max_len=HISTORY,
        batch_size=BATCH,
        get_trainer_func=trainer,
    ).fit(Dataset.construct(rows))


def train_recbole(dataset, watch):
    with tempfile.TemporaryDirectory() as folder:
        train_recbole_in(Path(folder), dataset.sequences, dataset.vocabulary, watch)


def train_recbole_in(folder, sequences, vocabulary, watch):
    import numpy as np
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    os.chdir(folder)  # RecBole leaves logs where it runs
    (folder / "log").mkdir()
    header = {"user_id": "user_id:token", "item_id": "item_id:token", "time": "timestamp:float"}
    log_of(sequences).rename(columns=header).to_csv(folder / "log" / "log.inter", sep="\t", index=False)
    settings = {
        "data_path": str(folder),
        "checkpoint_dir": str(folder),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
        "train_neg_sample_args": None,
        "MAX_ITEM_LIST_LENGTH": HISTORY,
        "train_batch_size": BATCH,
        "n_layers": LAYERS,
        "n_heads": HEADS,
        "hidden_size": WIDTH,
        "inner_size": 4 * WIDTH,
        "hidden_dropout_prob": DROPOUT,
        "attn_dropout_prob": DROPOUT,
        "mask_ratio": MASK_RATIO,
        "use_gpu": False,
        "state": "ERROR",
    }
    sys.argv = sys.argv[:1]  # RecBole reads the command line
    config = Config(model="ModernTransformer", dataset="log", config_dict=settings)
    init_seed(0, reproducibility=True)
    dataset = create_dataset(config)
    batches, _, _ = data_preparation(config, dataset)
    model = get_model("ModernTransformer")(config, dataset)

    numbers = [dataset.token2id("item_id", str(token)) for token in range(1, len(vocabulary) + 1)]
    columns = np.array([0, *numbers])  # token -> RecBole's number

    class Scorer:
        @torch.inference_mode()
        def score(self, histories):
            rows = np.zeros((len(histories), HISTORY), dtype=np.int64)
            for row, history in enumerate(histories):
                rows[row, : len(history[-HISTORY:])] = columns[history[-HISTORY:]]
            lengths = torch.from_numpy((rows > 0).sum(1))
            model.eval()
            question = {"item_id_list": torch.from_numpy(rows), "item_length": lengths}
            scores = model.full_sort_predict(question).numpy()[:, columns[1:]]
            model.train()
            return scores

    class Watched:
        shuffle = batches.shuffle

        def __iter__(self):
            for batch in batches:
                yield batch
                watch.step(len(batch), Scorer())

    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    watch.start()
    for epoch in range(10_000):
        trainer._train_epoch(Watched(), epoch)


def log_of(sequences):
    """A row for each token of the sequences; `time` is its place."""
    import numpy as np
    import pandas as pd

    users = np.repeat(np.arange(len(sequences)), sequences.lengths)
    places = np.arange(len(users)) - np.repeat(sequences.offsets[:-1], sequences.lengths)
    return pd.DataFrame({"user_id": users, "item_id": sequences.tokens.astype(int), "time": places})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    trainers = {"ours": train_ours, "rectools": train_rectools, "recbole": train_recbole}
    parser.add_argument("library", choices=trainers)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--validate-every", type=float)
    arguments = parser.parse_args()
    sys.path.insert(0, str(PROJECT))
    from bertrec_utils.data.dataset import load_dataset

    warnings.simplefilter("ignore")
    dataset = load_dataset(our_preset())
    watch = Watch(arguments.minutes, arguments.validate_every, dataset.split.validation)
    with contextlib.suppress(TimeIsUp):
        trainers[arguments.library](dataset, watch)


if __name__ == "__main__":
    main()
