"""The weights of recorded mixtures beside those that today's code chooses, and both tests.

    BERTREC_DATA=FOLDER python benchmarks/mixture_weights.py beauty

Until 2026-11-30 a weight was at most 1, and where there are too many items to score for every user (on Beauty), it was
chosen by the first users of the file, who need not be like the others. The runs on Beauty were sealed with those
weights, and the tables keep them. This needs the models in runs/ that record_run.py leaves, and writes
results/mixture-weights-PRESET.json.
"""

import argparse

from baselines import MIXTURES, build
from recording import RESULTS, mixture_name, model_name, read_result, require_plan, write_result
from tqdm import tqdm

from bertrec_utils.common import PROJECT
from bertrec_utils.data.dataset import load_dataset
from bertrec_utils.evaluation.baselines import linear_baseline
from bertrec_utils.evaluation.mixture import Mixture, ndcg_by_weight
from bertrec_utils.evaluation.ranking import Scorer, evaluate
from bertrec_utils.settings import PRESETS, get_preset
from bertrec_utils.training.checkpoints import load


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=PRESETS)
    preset = parser.parse_args().preset
    require_plan(preset)
    dataset = load_dataset(get_preset(preset).data)
    baseline = linear_baseline(dataset.split.train, len(dataset.vocabulary))
    mixed = mixture_name(len(dataset.vocabulary))

    def row(name: str, network: Scorer, holdout, weight: float, test: dict) -> dict:
        """`weight` and `test` are the recorded ones; what is chosen today is chosen on `holdout`."""
        qualities = ndcg_by_weight(network, baseline, holdout)
        today = max(qualities, key=qualities.__getitem__)
        tested = evaluate(Mixture(network, baseline, today), dataset.split.test, ["full"], progress=False)
        return {"model": name, "recorded": {"weight": weight, "test": test["full"]}} | {
            "today": {"weight": today, "test": tested["full"]},
            "validation": {str(each): quality for each, quality in qualities.items()},
        }

    rows = []
    for path in tqdm(sorted(RESULTS.glob(f"{preset}-*seed*.json"))):
        recorded, checkpoint = read_result(path.stem), load(PROJECT / "runs" / path.stem)
        checkpoint.check(dataset)
        users = checkpoint.settings.training.validation_users
        holdout = dataset.split.validation.sample(users, checkpoint.seed)  # as in training
        name = f"{model_name(recorded['recipe'], recorded['start'])}-{mixed}, seed {recorded['seed']}"
        rows.append(row(name, checkpoint.model, holdout, recorded["linear_weight"], recorded[f"test-{mixed}"]))
    for name, recorded in read_result(f"baselines-{preset}")["models"].items():
        if name in MIXTURES:
            network = build(name, dataset, recorded["settings"]).network
            rows.append(row(name, network, dataset.split.validation, recorded["settings"]["weight"], recorded["test"]))
    for each in rows:
        parts = [
            f"{when} {each[when]['weight']}: test NDCG@10 {each[when]['test']['ndcg@10']:.4f}"
            for when in ("recorded", "today")
        ]
        print(f"{each['model']}: {', '.join(parts)}")
    write_result(f"mixture-weights-{preset}", f"python benchmarks/mixture_weights.py {preset}", rows=rows)


if __name__ == "__main__":
    main()
