"""What the command line prints where a console or a pipe is not in UTF-8."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
from test_export import made_up_model

from bertrec_utils.training.checkpoints import save_items

TITLES = {"000": "千と千尋の神隠し", "001": "Amélie → 🎬", "002": '"Crème" \\ brûlée'}


@pytest.fixture(scope="module")
def recommend(tmp_path_factory):
    """The bytes that `recommend` writes to stdout in an encoding."""
    home = tmp_path_factory.mktemp("console")
    items = made_up_model(home).vocabulary.items.tolist()
    titles = [TITLES.get(item, f"Volume {item}") for item in items]
    save_items(home / "model", pd.DataFrame({"item": items, "title": titles, "genres": "", "ratings": 1}))

    def bytes_of(encoding, *options):
        command = [
            sys.executable,
            "-m",
            "bertrec_utils",
            "recommend",
            "model",
            "--history",
            "id:007",
            "-k",
            "50",
            *options,
        ]
        environment = os.environ | {"PYTHONIOENCODING": encoding}
        done = subprocess.run(command, capture_output=True, cwd=home, env=environment, check=False)
        assert done.returncode == 0 and done.stderr == b"", done.stderr
        return done.stdout

    return bytes_of


def test_a_title_that_the_console_cannot_show_has_question_marks(recommend):
    whole = recommend("utf-8").decode()
    assert all(title in whole for title in TITLES.values())
    assert recommend("cp1252") == whole.encode("cp1252", errors="replace")
    assert recommend("ascii") == whole.encode("ascii", errors="replace")


def test_json_is_whole_where_the_encoding_is_not(recommend):
    whole = recommend("utf-8", "--json")
    assert TITLES["000"].encode() in whole  # as it is
    assert json.loads(recommend("cp1252", "--json").decode("ascii")) == json.loads(whole)
    assert {film["title"] for film in json.loads(whole)["recommendations"]} >= set(TITLES.values())
