"""Give results/ the names of today: files, keys and texts that had older ones. Running it again changes nothing.

    python benchmarks/migrate_results.py

NAMES are whole keys and texts, WORDS are parts of them, FILES parts of file names. Settings, which were flat, are put
into the groups of `Settings`, with the defaults of those that did not exist yet. No number changes: that is checked
before a file is written.
"""

import argparse
import io
import json
import re
from pathlib import Path

import numpy as np
from recording import RESULTS, model_name

from bertrec_utils.common import replace_file
from bertrec_utils.training.checkpoints import RENAMED, migrate_settings

FILES = {
    "-bert4rec-paper-warm": "-bert4rec-counts",
    "-bert4rec-paper": "-bert4rec",
    "-sasrec-warm": "-modern-next",
    "-sasrec": "-modern-next-random",
    "counting-": "baselines-",
    "-near": "-conv",
}
RECIPES = {
    "bert4rec-paper-warm": ("bert4rec", "counts"),
    "bert4rec-paper": ("bert4rec", "random"),
    "sasrec-warm": ("modern-next", "counts"),
    "sasrec": ("modern-next", "random"),
    "ours": ("modern-both", "counts"),
}
NAMES = RENAMED | {
    # keys
    "counting_weight": "linear_weight",
    "with_counting": "with_linear",
    "transformer alone": "modern-both",
    "transformer with counting": "modern-both-with-linear",
    "following hit@10": "successive hit@10",
    "following ndcg@10": "successive ndcg@10",
    "questions after the cut": "targets after the cut",
    "questions/s": "targets/s",
    "questions": "targets",
    "users asked": "validation users",
    # baselines
    "Popularity": "popularity",
    "recent popularity": "recent-popularity",
    "Markov chain": "markov-chain",
    "smoothed chain": "smoothed-chain",
    "item kNN": "item-knn",
    "EASE": "ease",
    "linear next": "linear",
    # titles
    "no near films": "no causal convolution",
    "no cloze questions": "no cloze targets",
    "no next-film questions": "no next-item targets",
    "no next-film questions, random start, learned positions": "no next-item targets, random start, learned positions",
    "ties in file order, a film for validation": "ties in file order, an item held out for validation",
    "[MASK] after the newest film, not over it": "[MASK] after the newest item, not over it",
    "nobody looks at padding": "padding is not seen",
    "the newest film alone hidden, now and then": "now and then only the newest item is masked",
    "histories of 200 films": "histories of 200 items",
    "rotary places, norm first, [MASK] aside": "rotary positions, norm first, [MASK] aside",
    "overwrites the newest film": "overwrites the newest item",
}
WORDS = {
    # commands
    "--recipe bert4rec-paper-warm": "--recipe bert4rec --start counts",
    "--recipe bert4rec-paper": "--recipe bert4rec",
    "--recipe sasrec-warm": "--recipe modern-next",
    "--recipe sasrec": "--recipe modern-next --start random",
    "benchmarks/counting.py": "benchmarks/baselines.py",
    "benchmarks/ablations.py small": "benchmarks/variants.py ablations small",
    "benchmarks/tune_recipes.py small --recipes bert4rec-paper-warm": "benchmarks/variants.py tuning small "
    "--only bert4rec-counts",
    "benchmarks/tune_recipes.py small --recipes sasrec-warm": "benchmarks/variants.py tuning small --only modern-next",
    "benchmarks/sampled_softmax.py ml-1m": "benchmarks/variants.py sampled-softmax ml-1m --name h200",
    "benchmarks/ladder.py": "benchmarks/variants.py ladder ml-1m",
    # models, also in "ours - sasrec-warm"
    "bert4rec-paper-warm": "bert4rec-counts",
    "bert4rec-paper": "bert4rec",
    "sasrec-warm": "modern-next",
    "sasrec": "modern-next-random",
    "ours": "modern-both",
    "linear-next": "linear",
    "with-counting": "with-linear",
    "BERT4Rec, epoch": "modern-both, epoch",
    # notes and logs
    "lift": "popularity penalty",
    "near films are": "the causal convolution is",
    "near films": "causal convolution",
    "near-search": "conv-search",
    '{"near":0}': '{"conv_size":0}',
    "counting": "the linear baseline",
    "transformers": "networks",
    "transformer": "network",
    "questions": "targets",
    "question": "target",
    "each place": "each position",
    "places of a user": "positions of a user",
    "hidden films": "masked films",
    "fading history": "decayed history",
}
LOSSES = {"full": "all items", "gbce": "gBCE, t = 0.75, 1,024 items drawn uniformly"}
OLDER = {  # what the code of 2026-11-22 did without a setting for it
    "ablations/ml-1m-classic": {"warm_start": False, "next_only": 0.0, "cloze_only": 1.0},
    "ablations/ml-1m-cloze-only": {"warm_start": True, "next_only": 0.0, "cloze_only": 1.0},
}
# the longest first; not within another word
PARTS = re.compile(rf"(?<!\w)(?:{'|'.join(re.escape(old) for old in sorted(WORDS, key=len, reverse=True))})(?!\w)")


def rename(text: str) -> str:
    if text in NAMES:
        return NAMES[text]
    name, slash, protocol = text.partition("/")  # in an archive of ranks: "linear next/full"
    return NAMES[name] + slash + protocol if slash and name in NAMES else PARTS.sub(lambda old: WORDS[old[0]], text)


def settings_of(flat: dict, file: str) -> dict:
    """The groups of what was flat. Without the setting `near` there was no convolution."""
    flat = {"near": 0} | OLDER.get(file, {}) | flat
    settings = migrate_settings(flat)
    if file.startswith("ablations/"):
        settings["recipe"] = "modern-both"  # from which something is taken out
    now = settings["data"] | settings["model"] | settings["training"]
    kept = {RENAMED.get(name, name): value for name, value in flat.items()}
    for renamed in ("name", "paper", "warm_start"):
        kept.pop(renamed, None)
    assert kept.items() <= now.items(), file
    return settings


def migrate(value, file: str):
    if isinstance(value, list):
        return [migrate(each, file) for each in value]
    if not isinstance(value, dict):
        return rename(value) if isinstance(value, str) else value
    found = {}
    for key, each in value.items():
        if key == "preset" and isinstance(each, dict):
            settings = settings_of(each, file)
            if "parameters" in value and "recipe" not in value:  # a run from before there were recipes
                found |= {"recipe": settings["recipe"], "start": settings["training"]["start"]}
            found["settings"] = settings
        elif key == "code":
            found[key] = each  # the files of that commit
        elif key == "recipe" and each in RECIPES:
            found["recipe"], found["start"] = RECIPES[each]
        elif key == "warm_start":
            found["start"] = "counts" if each else "random"
        elif key == "loss" and isinstance(each, str):
            found["title"] = LOSSES.get(each, "a sample of " + each.replace("1024", "1,024"))
        else:
            found[rename(key)] = migrate(each, file)
    for run in found.get("tried", []):  # of a recipe: only two settings were written down
        if isinstance(run, dict) and "title" not in run:
            changes = run.pop("settings")
            title = f"learning rate {changes['learning_rate']}, {changes['epochs']} epochs"
            run |= {"title": f"{model_name(found['recipe'], found['start'])}, {title}", "changes": changes}
    return found


def numbers(value, key: str = "") -> list[float]:
    """All numbers in order, without those of whole settings, which `settings_of` compares."""
    if isinstance(value, dict):
        if key == "preset" or (key == "settings" and "training" in value):
            return []
        return [number for name, each in value.items() for number in numbers(each, name)]
    if isinstance(value, list):
        return [number for each in value for number in numbers(each)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def migrate_text(path: Path, file: str) -> bytes:
    text = path.read_text()
    old = json.loads(text)
    new = migrate(old, file)
    assert sorted(numbers(old)) == sorted(numbers(new)), file
    indent = 1 if "\n" in text.strip() else None
    return text.encode() if new == old else (json.dumps(new, indent=indent) + "\n").encode()


def migrate_ranks(path: Path) -> bytes:
    with np.load(path) as kept:
        ranks = dict(kept)
    if not any(rename(key) != key for key in ranks):
        return path.read_bytes()
    content = io.BytesIO()
    np.savez_compressed(content, **{rename(key): value for key, value in ranks.items()})
    return content.getvalue()


def new_name(name: str) -> str:
    for old, new in FILES.items():
        name = name.replace(old, new)
    return name


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    for path in sorted(path for path in RESULTS.rglob("*") if path.suffix in (".json", ".npz")):
        file = path.relative_to(RESULTS).with_suffix("").as_posix()
        content = migrate_text(path, file) if path.suffix == ".json" else migrate_ranks(path)
        target = path.with_name(new_name(path.name))
        if target == path and content == path.read_bytes():
            continue
        replace_file(target, lambda partial, content=content: partial.write_bytes(content))
        if target != path:
            path.unlink()
        print(file, "->", target.stem)


if __name__ == "__main__":
    main()
