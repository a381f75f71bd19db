"""The formats of a trained model's file: what older versions wrote, as today's."""

from dataclasses import asdict
from typing import Any

import torch

from ..settings import Settings

FORMAT = 3  # of the description in a file; raise it with any renamed or restructured part, and extend `migrate`
LATEST_2K, LATEST_2K_USERS = "ml-latest-2k", 2_148  # once a release, now the first users of ml-5k: the same sequences
RENAMED = {  # settings of format 1, which had no format number, and what they are called now
    "history_length": "max_length",
    "near": "conv_size",
    "next_only": "p_causal",
    "cloze_only": "p_cloze",
    "last_only": "p_mask_last",
    "warmup_share": "warmup_fraction",
}


class NewerFormat(ValueError):
    """A file of a format that this version of the package does not know."""


def migrate(description: dict[str, Any], weights: dict[str, torch.Tensor]) -> tuple[dict[str, Any], dict]:
    """Description and weights of a file in an older format as those of `FORMAT`; NewerFormat for a newer one."""
    version = description.get("format", 1)
    if version > FORMAT:
        raise NewerFormat(f"is of format {version}, written by a newer version of this package; update yours")
    if version == 1:
        settings = settings_of_format_1(description["preset"])
        description = description | {"settings": settings, "linear_weight": description["counting_weight"]}
        weights = {name.replace(".near.", ".conv."): value for name, value in weights.items()}
    settings = description["settings"]
    if version < 3 and settings["model"]["network"] == "bert4rec":
        raise ValueError("the network of bert4rec has changed since")
    return description | {"settings": update_settings(settings)}, weights


def update_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings in their groups, as an older version wrote them, without those that no longer exist."""
    training = {name: value for name, value in settings["training"].items() if name != "patience"}
    return settings | {"data": rename_release(settings["data"]), "training": training}


def rename_release(data: dict[str, Any]) -> dict[str, Any]:
    """Settings of data that name ml-latest-2k, as those that give the same sequences now."""
    if data["release"] != LATEST_2K:
        return data
    users = data["max_users"] if data["ratings_file"] else min(data["max_users"] or LATEST_2K_USERS, LATEST_2K_USERS)
    return data | {"release": "ml-5k", "max_users": users}


def settings_of_format_1(old: dict[str, Any]) -> dict[str, Any]:
    """The settings of format 1, all in one dictionary, in the groups of format 2."""
    flat = {RENAMED.get(name, name): value for name, value in old.items()}
    objective = "next" if flat["p_causal"] == 1 else "cloze" if flat["p_cloze"] == 1 else "both"
    recipe = "bert4rec" if flat.pop("paper", False) else f"modern-{objective}"
    flat["network"] = recipe.partition("-")[0]
    flat["start"] = "counts" if flat.pop("warm_start") else "random"
    flat.pop("patience")
    return asdict(Settings(flat.pop("name"), recipe).change(**flat))
