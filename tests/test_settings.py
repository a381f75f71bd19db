import json
import math
from dataclasses import asdict

import pytest

from bertrec_utils.settings import (
    DEFAULT_RECIPE,
    GROUPS,
    PRESETS,
    RECIPES,
    STARTS,
    Settings,
    get_preset,
    parse_changes,
)

TINY = get_preset("tiny")


def test_presets(monkeypatch):
    assert list(PRESETS) == ["tiny", "small", "ml-1m", "ml-20m", "ml-25m", "ml-32m"]
    assert get_preset().preset == "tiny"  # conftest.py sets BERTREC_PRESET
    monkeypatch.delenv("BERTREC_PRESET")
    assert get_preset().preset == "small"
    with pytest.raises(ValueError, match=r"no preset 'huge'.*tiny, small, ml-1m"):
        get_preset("huge")
    with pytest.raises(ValueError, match=r"no recipe 'ours'.*bert4rec, modern-cloze, modern-next, modern-both"):
        get_preset("tiny", "ours")


@pytest.mark.parametrize("recipe", RECIPES)
def test_settings_survive_being_written_as_json(recipe):
    written = json.loads(json.dumps(asdict(get_preset("ml-1m", recipe))))
    groups = {name: kind(**written[name]) for name, kind in GROUPS.items()}
    assert Settings(written["preset"], written["recipe"], **groups) == get_preset("ml-1m", recipe)


def test_recipes_are_what_they_are_called():
    network = {recipe: get_preset("small", recipe).model.network for recipe in RECIPES}
    assert network == {"bert4rec": "bert4rec"} | dict.fromkeys(
        ["modern-cloze", "modern-next", "modern-both"], "modern"
    )
    shares = {
        recipe: (get_preset("small", recipe).training.p_causal, get_preset("small", recipe).training.p_cloze)
        for recipe in RECIPES
    }
    assert shares["bert4rec"] == shares["modern-cloze"] == (0, 1) and shares["modern-next"] == (1, 0)
    assert min(shares["modern-both"]) >= 0 and sum(shares["modern-both"]) < 1
    assert [recipe for recipe in RECIPES if get_preset("small", recipe).model.causal] == ["modern-next"]
    assert [recipe for recipe in RECIPES if get_preset("small", recipe).start == "random"] == ["bert4rec"]


def test_every_run_has_a_name_of_its_own():
    names = {
        (preset, recipe, start): get_preset(preset, recipe, start).name
        for preset in PRESETS
        for recipe in RECIPES
        for start in STARTS
    }
    assert len(set(names.values())) == len(names)
    assert names["small", DEFAULT_RECIPE, "counts"] == "small"
    assert names["small", "bert4rec", "random"] == "small-bert4rec"
    assert names["small", "bert4rec", "counts"] == "small-bert4rec-counts"
    assert names["ml-1m", "modern-next", "random"] == "ml-1m-modern-next-random"


def test_a_changed_setting_leaves_the_others_alone():
    changed = TINY.change(width=16, epochs=7, max_users=None)
    assert (changed.model.width, changed.training.epochs, changed.data.max_users) == (16, 7, None)
    before, after = TINY.flat(), changed.flat()
    assert {name for name in before if before[name] != after[name]} == {"width", "epochs", "max_users"}
    with pytest.raises(ValueError, match=r"there is no setting 'widht'; the settings are .*width"):
        TINY.change(widht=16)


def test_no_setting_is_in_two_groups():
    assert len(TINY.flat()) == sum(len(asdict(getattr(TINY, group))) for group in GROUPS)


def test_settings_from_texts():
    found = parse_changes(["width=64", "learning_rate=1e-4", "causal=True", "max_users=none", "release=ml-1m"])
    assert found == {"width": 64, "learning_rate": 1e-4, "causal": True, "max_users": None, "release": "ml-1m"}
    assert [type(value) for value in found.values()] == [int, float, bool, type(None), str]
    assert parse_changes(["max_users=30", "ratings_file=a=b.csv"]) == {"max_users": 30, "ratings_file": "a=b.csv"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("width", "'width' sets nothing; write it as NAME=VALUE"),
        ("widht=3", "there is no setting 'widht'"),
        ("width=3.5", "the setting width is '3.5'; it must be a whole number"),
        ("dropout=much", "the setting dropout is 'much'; it must be a number"),
        ("causal=1", "the setting causal is '1'; it must be true or false"),
        ("epochs=none", "the setting epochs is 'none'; it must be a whole number"),
    ],
)
def test_texts_that_set_nothing_are_explained(text, message):
    with pytest.raises(ValueError, match=message):
        parse_changes([text])


@pytest.mark.parametrize(
    "setting",
    [
        {"layers": 0}, {"epochs": 0}, {"width": 30, "heads": 4}, {"heads": 0}, {"dropout": 1.0}, {"dropout": -0.1},
        {"mask_ratio": 1.5}, {"p_causal": 0.7, "p_cloze": 0.4}, {"learning_rate": 0.0}, {"batch_size": 0},
        {"patience": 0}, {"max_length": 0}, {"weight_decay": -1.0}, {"learning_rate": math.nan},
        {"network": "gru"}, {"start": "warm"}, {"precision": "float16"}, {"max_users": 0}, {"negatives": -1},
        {"validation_users": 0}, {"min_item_ratings": 0}, {"conv_size": -1},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(setting):
    with pytest.raises(
        ValueError, match=f"the setting {list(setting)[-1] if len(setting) == 1 else '(width|p_cloze)'} is"
    ):
        TINY.change(**setting)


@pytest.mark.parametrize("setting", [{"max_length": 1}, {"causal": True}])
def test_bert4rec_has_rules_of_its_own(setting):
    TINY.change(**setting)
    with pytest.raises(ValueError, match=f"the setting {next(iter(setting))} is"):
        get_preset("tiny", "bert4rec").change(**setting)
