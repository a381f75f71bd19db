"""Full softmax, a sample of it, and gBCE: what each brings in as many epochs, and how long it takes.

    BERTREC_DATA=FOLDER python benchmarks/sampled_softmax.py ml-1m --losses full 256 512 1024 gbce --seeds 0 1 2

A number is that of the negatives. results/sampled-softmax-PRESET[-NAME].json has a row for each loss and seed: best
validation NDCG@10 and the test metrics of its epoch (full ranking), and the seconds of all epochs. What is there
already is not run again. --name keeps the rows of another machine apart.
"""

import argparse
import json
import time
from dataclasses import replace

import torch
import torch.nn.functional as F
from record_run import write_result

from bertrec_utils.data.dataset import load_dataset
from bertrec_utils.evaluation.ranking import evaluate
from bertrec_utils.common import PROJECT
from bertrec_utils.model.modern import ModernTransformer
from bertrec_utils.model.bert4rec import network
from bertrec_utils.settings import PRESETS, get_preset
from bertrec_utils.training.trainer import fit, new_model

GBCE_NEGATIVES, CALIBRATION = 1024, 0.75


class WithGBCE(ModernTransformer):
    """The loss of gSASRec: binary cross-entropy of the target and of negatives drawn evenly, which are many too few;
    the target's probability is raised to a power that makes up for it (Petrov & Macdonald, RecSys 2023, section 5)."""

    def forward(self, questions, used=None, negatives=None):
        used = questions.used() if used is None else used
        states, labels = self.states(questions).flatten(0, 1)[used].float(), questions.labels.flatten()[used] - 1
        weight = self.item_embedding.weight[1:-1]
        items = torch.randint(self.item_count, (GBCE_NEGATIVES,), device=self.device)
        target = (states * F.embedding(labels, weight)).sum(1) + self.item_bias[labels]
        others = torch.addmm(self.item_bias[items], states, F.embedding(items, weight).T)
        others = F.softplus(others).masked_fill(items == labels[:, None], 0)  # - log(1 - sigmoid)
        share = GBCE_NEGATIVES / (self.item_count - 1)
        power = share * (CALIBRATION * (1 - 1 / share) + 1 / share)
        return (others.sum(1) - power * F.logsigmoid(target)).mean() / (GBCE_NEGATIVES + 1)


def run(dataset, preset, loss: str, seed: int) -> dict:
    if loss not in ("full", "gbce"):
        preset = replace(preset, negatives=int(loss))
    model = new_model(dataset, preset, seed, WithGBCE if loss == "gbce" else network)
    seconds = []
    started = time.perf_counter()
    history = fit(model, dataset, seed=seed, on_epoch=lambda run: seconds.append(time.perf_counter() - started))
    test = evaluate(model, dataset.split.test, ["full"], progress=False)["full"]
    return {
        "loss": loss,
        "seed": seed,
        "epochs": len(history),
        "seconds": seconds[-1],
        "validation ndcg@10": history["ndcg@10"].max(),
        "test": {name: test[name] for name in ("hit@10", "ndcg@10")},
        "history": history[["epoch", "loss", "ndcg@10", "seconds"]].to_dict("records"),
    }


def readme_rows(rows: list[dict]) -> list[str]:
    """The lines of README's table."""
    names = {"full": "all films", "gbce": f"gBCE, t = {CALIBRATION}, {GBCE_NEGATIVES:,} films drawn evenly"}
    return [
        f"| {names.get(row['loss'], 'a sample of ' + row['loss'])} | {row['validation ndcg@10']:.4f} | "
        f"{row['test']['ndcg@10']:.4f} |"
        for row in rows
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--losses", nargs="+", default=["full", "256", "512", "1024", "gbce"], metavar="LOSS")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--name", help="of the machine, say")
    arguments = parser.parse_args()
    name = f"sampled-softmax-{arguments.preset}" + (f"-{arguments.name}" if arguments.name else "")
    path = PROJECT / "results" / f"{name}.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    preset = get_preset(arguments.preset)
    dataset = load_dataset(preset)
    for seed in arguments.seeds:
        for loss in arguments.losses:
            if not any((row["loss"], row["seed"]) == (loss, seed) for row in rows):
                rows.append(run(dataset, preset, loss, seed))
                write_result(name, f"python benchmarks/sampled_softmax.py {arguments.preset}", rows=rows)
    print("loss    seed  seconds  validation NDCG@10  test NDCG@10")
    for row in sorted(rows, key=lambda row: (row["loss"], row["seed"])):
        validation, test = row["validation ndcg@10"], row["test"]["ndcg@10"]
        print(f"{row['loss']:8}{row['seed']:4}{row['seconds']:9.0f}{validation:20.4f}{test:14.4f}")


if __name__ == "__main__":
    main()
