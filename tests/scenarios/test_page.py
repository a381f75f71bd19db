"""The page in site/ against the package: its modules under Node, and itself in a browser."""

import json
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
import torch

from bertrec_utils.commands.page import SOURCES, write_page
from bertrec_utils.common import PROJECT
from bertrec_utils.model.modern import build_network
from bertrec_utils.scenarios.recommender import Recommender
from bertrec_utils.training.checkpoints import Checkpoint, load

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(not NODE, reason="no Node to run the page's modules")
START = """
import { readFileSync } from "node:fs";
import { Network, readWeights } from "SITE/model.js";
import { Recommender } from "SITE/recommender.js";
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
