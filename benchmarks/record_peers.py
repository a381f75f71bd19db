"""Train RecTools' and RecBole's BERT4Rec on ML-1M for a while and record how good they are when.

    BERTREC_DATA=FOLDER python benchmarks/record_peers.py --minutes 15

Width, layers, heads, dropout, history, batch and mask ratio as in train_speed.py, everything else as they come.
Validation data, our ranking of all items. Writes results/rectools-ml-1m.json and results/recbole-ml-1m.json.
"""

import argparse
import datetime
import json

import peers
from record_run import machine

from bertrec_utils.releases import PROJECT
from bertrec_utils.training import replace_file


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=15, help="minutes of training for each")
    minutes = parser.parse_args().minutes
    for library in peers.REQUIREMENTS:
        lines = peers.run(library, minutes, validate_every=minutes / 10)
        result = {
            "command": f"python benchmarks/record_peers.py --minutes {minutes:g}",
            "date": datetime.date.today().isoformat(),
            "settings": {name: getattr(peers, name) for name in peers.SETTINGS},
            "machine": machine(),
            "versions": peers.REQUIREMENTS[library],
            "history": lines,
        }
        text = json.dumps(result, indent=1) + "\n"
        replace_file(PROJECT / "results" / f"{library}-ml-1m.json", lambda path, text=text: path.write_text(text))
        print(f"{library}: validation NDCG@10 {lines[-1]['ndcg@10']:.4f} after {lines[-1]['seconds'] / 60:.0f} min")


if __name__ == "__main__":
    main()
