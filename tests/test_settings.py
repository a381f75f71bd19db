import json
import re
from dataclasses import asdict, fields

import numpy as np
import pytest

from bertrec_utils.settings import GROUPS, PRESETS, RECIPES, Settings, get_preset, parse_changes


def test_each_change_reaches_its_group_and_nothing_else_changes():
    before = get_preset("tiny")
    after = before.change(max_users=7, width=64, epochs=9)
    assert (after.data.max_users, after.model.width, after.training.epochs) == (7, 64, 9)
    assert {name for name, value in after.flat().items() if value != before.flat()[name]} == {
        "max_users", "width", "epochs",
    }  # fmt: skip
    assert (before.data.max_users, before.model.width) == (120, 32)  # a copy was changed
    assert (after.preset, after.recipe, after.name) == (before.preset, before.recipe, before.name)
    assert before.change() == before


def test_no_two_groups_have_a_setting_of_the_same_name():
    names = [field.name for group in GROUPS.values() for field in fields(group)]
    assert len(set(names)) == len(names) == len(get_preset("tiny").flat())


def test_a_setting_that_there_is_not_lists_those_there_are():
    for change in (lambda: get_preset("tiny").change(widht=3), lambda: parse_changes(["widht=3"])):
        with pytest.raises(
            ValueError, match=r"^there is no setting 'widht'; the settings are release, .*width.*epochs"
        ):
            change()


def test_texts_become_values_of_the_type_of_their_setting():
    texts = ["epochs=3", "learning_rate=1e-3", "causal=True", "release=ml-1m", "max_users=none", "dropout=0"]
    changes = parse_changes([*texts, "ratings_file=a=b.csv", "items_file=None"])
    assert changes == {
        "epochs": 3, "learning_rate": 0.001, "causal": True, "release": "ml-1m", "max_users": None, "dropout": 0.0,
        "ratings_file": "a=b.csv", "items_file": None,
    }  # fmt: skip
    assert [type(value) for value in changes.values()][:4] == [int, float, bool, str]
    assert type(changes["dropout"]) is float
    assert parse_changes(["causal=false", "max_users=12"]) == {"causal": False, "max_users": 12}
    assert parse_changes([]) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs", "'epochs' sets nothing; write it as NAME=VALUE, for example epochs=3"),
        ("epochs=", "the setting epochs is ''; it must be a whole number"),
        ("epochs=2.5", "the setting epochs is '2.5'; it must be a whole number"),
        ("max_users=many", "the setting max_users is 'many'; it must be a whole number"),
        ("learning_rate=fast", "the setting learning_rate is 'fast'; it must be a number"),
        ("causal=1", "the setting causal is '1'; it must be true or false"),
        ("epochs=none", "the setting epochs is 'none'; it must be a whole number"),
    ],
)
def test_texts_of_another_form_or_type_are_refused(text, message):
    with pytest.raises(ValueError) as raised:
        parse_changes([text])
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"max_users": 0}, "none or at least 1"),
        ({"min_item_ratings": 0}, "at least 1"),
        ({"network": "gru"}, "one of bert4rec, modern"),
        ({"layers": 0}, "at least 1"),
        ({"heads": 0}, "at least 1"),
        ({"width": 30, "heads": 4}, "a multiple of 2 x 4 heads"),
        ({"max_length": 0}, "at least 1"),
        ({"conv_size": -1}, "at least 0"),
        ({"dropout": 1.0}, "at least 0 and below 1"),
        ({"start": "warm"}, "one of random, counts"),
        ({"p_causal": 1.5}, "from 0 to 1"),
        ({"mask_ratio": -0.1}, "from 0 to 1"),
        ({"p_cloze": 0.6}, "at most 1 - p_causal"),  # p_causal is 0.5
        ({"batch_size": 0}, "at least 1"),
        ({"epochs": 0}, "at least 1"),
        ({"validation_users": 0}, "at least 1"),
        ({"negatives": -1}, "at least 0"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"learning_rate": float("nan")}, "a number"),
        ({"weight_decay": -0.1}, "at least 0"),
        ({"precision": "float16"}, "one of auto, float32, bfloat16"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_values_that_make_no_sense_are_refused(change, rule):
    name = next(iter(change))
    with pytest.raises(ValueError) as raised:
        get_preset("tiny").change(**change)
    assert str(raised.value) == f"the setting {name} is {change[name]}; it must be {rule}"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"epochs": 2.5}, "epochs is 2.5; it must be a whole number"),
        ({"epochs": "3"}, "epochs is '3'; it must be a whole number"),
        ({"epochs": True}, "epochs is True; it must be a whole number"),
        ({"epochs": None}, "epochs is None; it must be a whole number"),
        ({"causal": 1}, "causal is 1; it must be true or false"),
        ({"learning_rate": float("inf")}, "learning_rate is inf; it must be a number"),
        ({"dropout": float("nan")}, "dropout is nan; it must be a number"),
    ],
)
def test_values_of_another_type_are_refused(change, expected):
    with pytest.raises(ValueError, match=re.escape(expected)):
        get_preset("tiny").change(**change)


def test_numbers_of_numpy_become_pythons_own():
    numbers = {"epochs": np.int64(3), "learning_rate": np.float32(0.5), "causal": np.True_, "weight_decay": 1}
    changed = get_preset("tiny").change(**numbers, max_users=None)
    assert json.loads(json.dumps(asdict(changed))) == asdict(changed)
    assert (changed.training.epochs, changed.model.causal, changed.data.max_users) == (3, True, None)
    assert type(changed.training.weight_decay) is float


def test_bert4rec_needs_a_position_for_its_mask_and_sees_both_sides():
    settings = get_preset("tiny", "bert4rec")
    with pytest.raises(ValueError, match=r"^the setting max_length is 1; it must be at least 2$"):
        settings.change(max_length=1)
    with pytest.raises(ValueError, match=r"^the setting causal is True; it must be false for bert4rec$"):
        settings.change(causal=True)
    assert get_preset("tiny").change(max_length=1, causal=True).model.causal


def test_every_run_has_a_name_of_its_own():
    chosen = [(name, recipe, start) for name in PRESETS for recipe in RECIPES for start in ("counts", "random")]
    assert len({get_preset(*each).name for each in chosen}) == len(chosen)
    assert get_preset("small").name == "small"
    assert get_preset("small", "bert4rec").name == "small-bert4rec"
    assert get_preset("small", "bert4rec", "counts").name == "small-bert4rec-counts"
    assert get_preset("small", "modern-next", "random").name == "small-modern-next-random"


def test_flat_settings_hold_all_that_is_needed_to_make_them_again():
    settings = get_preset("small", "modern-next", "random")
    assert Settings(settings.preset, settings.recipe).change(**settings.flat()) == settings
