"""Train RecTools' and RecBole's ModernTransformer on ML-1M for a while and record how good they are when.

    BERTREC_DATA=FOLDER python benchmarks/record_peers.py

Width, layers, heads, dropout, history, batch and mask ratio as in train_speed.py, everything else is their default.
Validated with our ranking of all items. Writes results/rectools-ml-1m.json and results/recbole-ml-1m.json.
"""

import argparse

import peers
from record_run import write_result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8, help="minutes of training for each")
    minutes = parser.parse_args().minutes
    for library in peers.REQUIREMENTS:
        lines = peers.run(library, minutes, validate_every=minutes / 10)
        write_result(
            f"{library}-ml-1m",
            f"python benchmarks/record_peers.py --minutes {minutes:g}",
            library=peers.versions_of(library),
            settings={name.lower(): getattr(peers, name) for name in peers.SETTINGS},
            history=lines,
        )
        print(f"{library}: validation NDCG@10 {lines[-1]['ndcg@10']:.4f} after {lines[-1]['seconds'] / 60:.0f} min")


if __name__ == "__main__":
    main()
