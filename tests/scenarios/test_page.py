"""The page in site/ against the package: its modules under Node, and itself in a browser."""

import io
import json
import re
import shutil
import subprocess
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from scenarios import test_titles

from bertrec_utils.commands.page import SOURCES, write_page
from bertrec_utils.common import PROJECT
from bertrec_utils.model.modern import build_network
from bertrec_utils.scenarios.recommender import Recommender
from bertrec_utils.scenarios.titles import read_history, split_year
from bertrec_utils.training.checkpoints import Checkpoint, load

CASES = PROJECT / "tests" / "cases"
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(not NODE, reason="no Node to run the page's modules")
START = """
import { readFileSync } from "node:fs";
import { Network, readWeights } from "SITE/model.js";
import { Recommender } from "SITE/recommender.js";
import { TitleIndex } from "SITE/titles.js";
import { readHistory } from "SITE/exports.js";
const { folder, ...given } = JSON.parse(readFileSync(0, "utf8"));
const settings = JSON.parse(readFileSync(`${folder}/data/settings.json`, "utf8"));
const films = JSON.parse(readFileSync(`${folder}/data/films.json`, "utf8"));
const file = readFileSync(`${folder}/data/model.safetensors`);
const makeRecommender = () => {
  const network = new Network(settings.model, readWeights(new Uint8Array(file).buffer));
  const known = films.token.flatMap((token, row) => (token ? [[token, row]] : [])).sort((a, b) => a[0] - b[0]);
  const [ratings, series] = [films.ratings, films.series].map((column) => known.map(([, row]) => column[row]));
  return new Recommender(network, settings, ratings, series);
};
const answer = (value) => console.log(JSON.stringify(value));
"""


def run_node(folder, script, **given):
    """What a script `answer`s that has imported the page's modules and read its data, in `folder`."""
    code = START.replace("SITE", SOURCES.as_uri()) + script
    command = [NODE, "--input-type=module", "--eval", code]
    done = subprocess.run(command, input=json.dumps(given | {"folder": str(folder)}), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def make_page(folder, checkpoint):
    """The page of a model, whose films lie on a grid instead of a map, which takes a minute to make."""
    items = checkpoint.vocabulary.items
    positions = pd.DataFrame({"item": items, "x": np.arange(len(items)) % 97, "y": np.arange(len(items)) // 97})
    return write_page(folder, checkpoint, positions)


@pytest.fixture(scope="module")
def medium():
    return load(PROJECT / "pretrained" / "medium", "cpu")


@pytest.fixture(scope="module")
def recommender(medium):
    return Recommender(medium.model, medium.vocabulary, medium.load_items())


@pytest.fixture(scope="module")
def page(medium, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    make_page(folder, medium)
    return folder


def histories_of(vocabulary, lengths, random):
    return [random.choice(len(vocabulary), length, replace=False) + 1 for length in lengths]


RECOMMEND = """
const recommender = makeRecommender();
answer(given.requests.map(([tokens, options]) => recommender.recommend(tokens, 10, options)));
"""


def assert_the_same(recommender, folder, requests):
    """The page's lists are those of Python for (tokens, options) each: films, order, and scores within 1e-5."""
    told = [
        (tokens.tolist(), {"asSet": as_set, "penalty": penalty, "excludeSeries": series})
        for tokens, (as_set, penalty, series) in requests
    ]
    for (tokens, (as_set, penalty, series)), found in zip(
        requests, run_node(folder, RECOMMEND, requests=told), strict=True
    ):
        options = {"as_set": as_set, "popularity_penalty": penalty, "exclude_series": series}
        items = recommender.vocabulary.item_ids(tokens).tolist()
        expected = recommender.recommend_items(items, 10, **options)
        assert [film["token"] for film in found] == recommender.vocabulary.tokens(expected["item"]).tolist()
        np.testing.assert_allclose([film["score"] for film in found], expected.score, rtol=0, atol=1e-5)


@needs_node
def test_200_lists_are_those_of_python(recommender, page):
    """Of 1 to 300 films, of which the network reads 200, in order or as a set, with every option."""
    random = np.random.default_rng(0)
    lengths = [*range(1, 31), *random.integers(1, 60, 160), *random.integers(150, 301, 10)]
    requests = []
    for number, tokens in enumerate(histories_of(recommender.vocabulary, lengths, random)):
        as_set = number % 4 == 1 and len(tokens) < 40
        requests.append((tokens, (as_set, [0, 0.25, 1][number % 3], number % 5 == 0)))
    assert_the_same(recommender, page, requests)


@pytest.fixture(params=["bert4rec", "modern", "causal", "short", "no convolution"])
def other_network(request, medium):
    """A network of another kind, its weights away from the tiny ones it starts from, so that mistakes show; rounded to
    half precision, as those on the page are."""
    changes = {
        "bert4rec": {"network": "bert4rec", "conv_size": 0, "max_length": 20},
        "modern": {"layers": 3, "heads": 4, "width": 40},
        "causal": {"causal": True, "max_length": 15},
        "short": {"max_length": 2, "layers": 1},
        "no convolution": {"conv_size": 0, "causal": True},
    }[request.param]
    settings = medium.settings.change(**{"width": 32, "heads": 2, "max_length": 50} | changes)
    torch.manual_seed(0)
    model = build_network(len(medium.vocabulary), settings.model).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            torch.nn.init.normal_(parameter, 1.0 * name.endswith("norm.weight"), 0.2)
            parameter.copy_(parameter.half())
        model.item_embedding.weight[0] = 0
    return Checkpoint(model, medium.vocabulary, settings, 0, medium.history, {}, 0.0, medium.folder)


@needs_node
def test_every_network_answers_as_in_python(other_network, recommender, tmp_path):
    make_page(tmp_path, other_network)
    named = Recommender(other_network.model, other_network.vocabulary, recommender.items.reset_index())
    random = np.random.default_rng(1)
    histories = histories_of(named.vocabulary, [1, 2, 3, 5, 14, 15, 19, 20, 21, 60], random)
    assert_the_same(named, tmp_path, [(tokens, (as_set, 0, False)) for tokens in histories for as_set in (False, True)])


@needs_node
def test_suggestions_and_titles_are_the_panels(recommender, page):
    """While a title is typed, with a letter wrong or missing; a year; other scripts; and every kind of look-up."""
    random = np.random.default_rng(2)
    titles = recommender.items.title.tolist()
    typed = ["harry poter", "le fabul", "ghostbusters 2016", "blade runner 2049", "e.t.", "WALL·E", "a", "13 ", "id:1", "id:0"]
    typed += ["", "?", "(1999)", "日本", "مرحبا", "🎬🎬", "<b>Alien</b>", "x" * 5_000, "star wars episode", "Amélie"]
    for title in random.choice(titles, 60):
        start, place = title[: random.integers(2, 30)], random.integers(1, 9)
        typed.append(start[:place] + random.choice(list("aeiou st")) + start[place + random.integers(0, 2) :])
    asked = [*titles[::60], *(split_year(title)[0] for title in titles[7::60]), *typed]
    asked += ["Nope (2030)", "Star Wars (1977)", "The Empire Strikes Back (1980)", "id:2", "Vitelloni, I", "Ghostbusters"]
    script = """
    const index = new TitleIndex(films);
    const found = given.asked.map((title) => index.find(title));
    answer([given.typed.map((text) => index.suggest(text, 6).map((row) => films.item[row])),
      found.map(({ row }) => films.item[row] ?? null), found.map(({ problem }) => problem ?? null)]);
    """
    suggested, items, problems = run_node(page, script, typed=typed, asked=asked)
    assert suggested == [recommender.suggest(text, 6) for text in typed]
    for title, item, problem in zip(asked, items, problems, strict=True):
        [expected], unknown = [recommender.look_up([title])[0] or [None], recommender.look_up([title])[1]]
        assert item == expected
        if unknown:
            assert problem.split("closest: ")[1:] == str(unknown[title]).split("closest: ")[1:]


def write(folder, name, content):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


def archive(**files):
    with zipfile.ZipFile(content := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as packed:
        for name, text in files.items():
            packed.writestr(name.replace("__", "/").replace("_csv", ".csv").replace("_json", ".json"), text)
    return content.getvalue()


DATED = "Date,Name,Year,Letterboxd URI"
FILES = {  # beside those in tests/cases
    "imdb.csv": test_titles.IMDB,
    "imdb_old.csv": test_titles.IMDB_OLD,
    "trakt.csv": test_titles.TRAKT,
    "netflix.csv": test_titles.NETFLIX,
    "tabs.tsv": "Title\tYear\tDate\nLater\t2000.0\t2020-02-01\nFürst\t1999.0\t2020-01-01\n".encode("cp1252"),
    "days.csv": "\ufeffNAME;YEAR;WATCHED DATE\r\nLater;2000;1.12.2020\r\nFirst;1999;13.1.2020\r\n",
    "open.csv": "Name,Year,Date\nLater,2000,1/12/2020\nFirst,1999,2/11/2020\n",
    "same.csv": "Name,Year,Date\nLater,2000,2/3/2020\nFirst,1999,1/2/2020\n",
    "undated.csv": "Name,Year,Date\nLater,2000,2020-01-01\nFirst,1999,\n",
    "lines.csv": 'Name,Year\n"Two ""lines""\nof one title",1999\n\n"A, B",2000\n',
    "mine.txt": "Up\n\n  Alien (1979) \nUp\n#Alive\n# no\n2) 12 Angry Men\n",
    "trakt.json": json.dumps([test_titles.trakt(*film) for film in [("Up", 2009, "2020-05-03"), ("M", None, None)]]),
    "whole.zip": archive(
        watched_csv=f"{DATED}\n2020-05-01,Up,2009,u\n2020-05-02,Heat,1995,u\n2020-05-03,Alien,1979,u\n",
        diary_csv=f"{DATED},Watched Date\n2020-06-02,Alien,1979,u,2020-06-01\n2020-05-03,Alien,1979,u,2019-01-01\n",
        deleted__diary_csv=f"{DATED},Watched Date\n2020-05-01,Gone,1999,u,2010-01-01\n",
    ),
    "trakt.zip": archive(trakt__history_json=json.dumps([test_titles.trakt("Heat", 1995, "2020-05-02")])),
    "columns.csv": "id,stars\n1,5\n",
    "nothing.csv": "Name,Year\n",
    "empty.csv": "",
    "quote.csv": 'Name,Year\n"Alien,1979\n',
    "long.csv": "Name,Year\nA,1979,x,y\nB,1979\nC,1,2,3,4\n",
    "blank.txt": "\n \n",
    "zero.txt": "PK\0\1",
    "show.json": '[{"show": {"title": "Lost"}}]',
    "number.json": "[1]",
    "text.json": '[{"movie": "Alien"}]',
    "deep.json": "[" * 100_000,
    "part.json": "{",
    "damaged.zip": "PK",
    "none.zip": archive(watched_json="[]"),
}


@needs_node
def test_exports_are_read_as_in_python(page, tmp_path, caplog):
    paths = [write(tmp_path, name, content) for name, content in FILES.items()]
    paths += [path for folder in ("histories", "letterboxd", "imdb-latin1") for path in sorted((CASES / folder).iterdir())]
    paths.append(PROJECT / "data" / "example_diary.csv")
    script = """
    const read = (path) => {
      const { buffer, byteOffset, length } = readFileSync(path);
      return readHistory(path, buffer.slice(byteOffset, byteOffset + length));
    };
    answer(await Promise.all(given.paths.map((path) => read(path).catch((error) => ({ error: error.message })))));
    """
    found = run_node(page, script, paths=[str(path) for path in paths])
    for path, answer in zip(paths, found, strict=True):
        caplog.clear()
        try:
            assert answer.get("titles") == read_history(path), path
            assert answer["notes"] == caplog.messages, path
        except ValueError as error:
            kept = re.split(r" \(|; it begins", str(error))[0]  # what is said of the reason differs
            assert answer["error"].startswith(kept), path
