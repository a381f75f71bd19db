"""The page in site/ against the package: its modules under Node, and itself in a browser."""

import io
import json
import re
import shutil
import subprocess
import threading
import zipfile
from dataclasses import replace
from functools import partial
from http.server import ThreadingHTTPServer

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import scipy.stats
import torch
from scenarios import test_watch_history
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from bertrec_utils.__main__ import main
from bertrec_utils.commands.page import SOURCES, Handler, describe, kept_positions, write_page
from bertrec_utils.common import PROJECT
from bertrec_utils.data.sequences import Sequences
from bertrec_utils.model.modern import build_network
from bertrec_utils.scenarios.recommender import Recommender
from bertrec_utils.scenarios.titles import split_year
from bertrec_utils.scenarios.watch_history import read_history
from bertrec_utils.training.checkpoints import Checkpoint, load

CASES = PROJECT / "tests" / "cases"
NODE = shutil.which("node")
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_node = pytest.mark.skipif(not NODE, reason="no Node to run the page's modules")
START = """
import { readFileSync } from "node:fs";
import { Network, readWeights } from "SITE/model.js";
import { Recommender } from "SITE/recommender.js";
import { TitleIndex, displayName } from "SITE/titles.js";
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


def test_the_command_writes_a_page_and_its_map_once(page, medium, tmp_path, capsys):
    """The map is that of the page that is there, which is of the same weights: to make another would take a minute."""
    before = {path.name: path.read_bytes() for path in page.rglob("*") if path.is_file()}
    main(["page", "--out", str(page)])
    assert {path.name: path.read_bytes() for path in page.rglob("*") if path.is_file()} == before
    assert f"{page}: the page, {sum(map(len, before.values())) / 1e6:.1f} MB" in capsys.readouterr().out
    assert {path.name for path in SOURCES.glob("*.*")} - {"positions.csv"} < set(before)
    assert safetensors.torch.load(before["model.safetensors"]).keys() == medium.model.state_dict().keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "say where the page is to be written, --out FOLDER"), (["--out", "here"], "run this command in a clone")],
)
def test_what_the_command_refuses(arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bertrec_utils.commands.page.SOURCES", tmp_path / "site")  # as where it is installed
    with pytest.raises(SystemExit, match=message):
        main(["page", *arguments])
    assert not list(tmp_path.iterdir())


def test_a_site_that_is_there_is_not_overwritten(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr("bertrec_utils.commands.page.write_page", lambda out, *_: written.append(out) or 0)
    monkeypatch.chdir(tmp_path)
    site = tmp_path / "site"
    site.mkdir()
    (site / ".git").mkdir()
    (site / "index.html").write_text("mine")
    with pytest.raises(SystemExit, match="--out site holds files that are of no earlier page; name a new or an empty"):
        main(["page", "no-model", "--out", "site"])
    (site / "index.html").unlink()
    main(["page", "--out", "site"])
    main(["page", "--out", "new/folder"])
    (site / "index.html").write_text("of an earlier page")
    (site / "data").mkdir()
    (site / "data" / "settings.json").write_text("{}")
    main(["page", "--out", "site"])
    monkeypatch.setattr("bertrec_utils.commands.page.SOURCES", tmp_path)
    main(["page", "--out", "."])  # into whose data alone it is written
    assert [str(out) for out in written] == ["site", "new/folder", "site", "."]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site"]


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
        "bert4rec": {"network": "bert4rec", "conv_size": 0, "max_length": 20, "p_cloze": 1.0, "p_causal": 0.0},
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
    typed = [
        "harry poter",
        "le fabul",
        "ghostbusters 2016",
        "blade runner 2049",
        "e.t.",
        "WALL·E",
        "a",
        "13 ",
        "id:1",
        "id:0",
    ]
    typed += ["", "?", "(1999)", "日本", "مرحبا", "🎬🎬", "<b>Alien</b>", "x" * 5_000, "star wars episode", "Amélie"]
    for title in random.choice(titles, 60):
        start, place = title[: random.integers(2, 30)], random.integers(1, 9)
        typed.append(start[:place] + random.choice(list("aeiou st")) + start[place + random.integers(0, 2) :])
    asked = [*titles[::60], *(split_year(title)[0] for title in titles[7::60]), *typed]
    asked += [
        "Nope (2030)",
        "Star Wars (1977)",
        "The Empire Strikes Back (1980)",
        "id:2",
        "Vitelloni, I",
        "Ghostbusters",
    ]
    script = """
    const index = new TitleIndex(films);
    const found = given.asked.map((title) => index.find(title));
    answer([given.typed.map((text) => index.suggest(text, 6).map((row) => films.item[row])),
      found.map(({ row }) => films.item[row] ?? null), found.map(({ problem }) => problem ?? null)]);
    """
    suggested, items, problems = run_node(page, script, typed=typed, asked=asked)
    assert suggested == [recommender.suggest(text, 6) for text in typed]
    for title, item, problem in zip(asked, items, problems, strict=True):
        found, unknown = recommender.look_up([title])
        assert [item] == (found or [None])
        reasons = {"has too few ratings", "is the title of", "is newer than", "is not a title here"}
        assert {reason for reason in reasons if reason in (problem or "")} == {
            reason for reason in reasons if unknown and reason in unknown[title].reason
        }


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
    "imdb.csv": test_watch_history.IMDB,
    "imdb_old.csv": test_watch_history.IMDB_OLD,
    "trakt.csv": test_watch_history.TRAKT,
    "netflix.csv": test_watch_history.NETFLIX,
    "tabs.tsv": "Title\tYear\tDate\nLater\t2000.0\t2020-02-01\nFürst\t1999.0\t2020-01-01\n".encode("cp1252"),
    "days.csv": "\ufeffNAME;YEAR;WATCHED DATE\r\nLater;2000;1.12.2020\r\nFirst;1999;13.1.2020\r\n",
    "open.csv": "Name,Year,Date\nLater,2000,1/12/2020\nFirst,1999,2/11/2020\n",
    "same.csv": "Name,Year,Date\nLater,2000,2/3/2020\nFirst,1999,1/2/2020\n",
    "again.csv": "Name,Year,Watched Date\nHeat,1995,2021-01-01\nAlien,1979,2020-06-01\nHeat,1995,2019-01-01\n",
    "some_days.csv": "Name,Year,Date\nHeat,1995,\nC,2003,2021-01-02\nB,2002,2021-01-01\nA,2001,2021-01-01\n",
    "undated.csv": "Name,Year,Date\nLater,2000,2020-01-01\nFirst,1999,\n",
    "lines.csv": 'Name,Year\n"Two ""lines""\nof one title",1999\n\n"A, B",2000\n',
    "mine.txt": "Up\n\n  Alien (1979) \nUp\n#Alive\n# no\n2) 12 Angry Men\n",
    "trakt.json": json.dumps(
        [test_watch_history.trakt(*film) for film in [("Up", 2009, "2020-05-03"), ("M", None, None)]]
    ),
    "whole.zip": archive(
        watched_csv=f"{DATED}\n2020-05-01,Up,2009,u\n2020-05-02,Heat,1995,u\n2020-05-03,Alien,1979,u\n",
        diary_csv=f"{DATED},Watched Date\n2020-06-02,Alien,1979,u,2020-06-01\n2020-05-03,Alien,1979,u,2019-01-01\n",
        deleted__diary_csv=f"{DATED},Watched Date\n2020-05-01,Gone,1999,u,2010-01-01\n",
    ),
    "trakt.zip": archive(trakt__history_json=json.dumps([test_watch_history.trakt("Heat", 1995, "2020-05-02")])),
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
    paths += [
        path for folder in ("histories", "letterboxd", "imdb-latin1") for path in sorted((CASES / folder).iterdir())
    ]
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


@needs_node
def test_films_for_two_people(recommender, page):
    """Those with the highest sum of log-probabilities, and those whose worse rank is best."""
    random = np.random.default_rng(3)
    two = histories_of(recommender.vocabulary, [4, 7], random)
    script = """
    const recommender = makeRecommender(), both = (byRank) => recommender.recommendForTwo(given.two, 10, { byRank });
    answer([false, true].map((byRank) => both(byRank).map(({ token, ranks }) => [token, ...ranks])));
    """
    by_sum, by_rank = run_node(page, script, two=[tokens.tolist() for tokens in two])
    scores = recommender.log_probabilities([recommender.vocabulary.item_ids(tokens) for tokens in two])
    scores[:, np.concatenate(two) - 1] = -np.inf
    ranks = 1 + scores.shape[1] - scipy.stats.rankdata(scores, method="max", axis=1)
    expected = [scores.sum(0).argsort()[::-1][:10], np.lexsort((-scores.sum(0), ranks.max(0)))[:10]]
    for found, columns in zip((by_sum, by_rank), expected, strict=True):
        assert found == [[column + 1, *ranks[:, column]] for column in columns.tolist()]


@needs_node
def test_what_it_looks_at_is_what_the_network_looks_at(medium, page):
    """The attention of the [MASK] in each layer and head, from PyTorch's queries and keys."""
    tokens = np.array([5, 100, 3_000, 7, 42, 8_000])
    expected = []

    def look(module, inputs, _):
        queries, history, _, rotation = inputs
        query, key, _ = module.query_key_value(queries, history, rotation)
        weights = (query[0] @ key[0].transpose(1, 2) / key.shape[-1] ** 0.5).softmax(-1)
        expected.append(weights[:, -1].tolist())

    hooks = [block.attention.register_forward_hook(look) for block in medium.model.blocks]
    medium.model.score(Sequences(tokens, np.array([0, len(tokens)]), np.array([0])))
    for hook in hooks:
        hook.remove()
    script = """
    const trace = [];
    makeRecommender().network.userVector(given.tokens, trace);
    answer(trace);
    """
    trace = run_node(page, script, tokens=tokens.tolist())
    np.testing.assert_allclose([layer["heads"] for layer in trace], expected, atol=1e-5)
    assert all(0 < layer["conv"] < 1 for layer in trace)


LARGE = 2**53  # of this number and the next JavaScript makes one


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """The page of a shop, where things are bought again and again, and its model; ids are larger than JavaScript's
    whole numbers, and the first two things have one name."""
    home = tmp_path_factory.mktemp("shop")
    rows = [f"{user},{LARGE + (7 * user + 3 * day % 5) % 40},{day}" for user in range(60) for day in range(10)]
    titles = [f"{LARGE + number},Thing number {max(1, number)}" for number in range(40)]
    (home / "log.csv").write_text("user,item,timestamp\n" + "\n".join(rows) + "\n")
    (home / "titles.csv").write_text("item,title\n" + "\n".join(titles) + "\n")
    log = ["--ratings", str(home / "log.csv"), "--items", str(home / "titles.csv")]
    main(["train", "--preset", "tiny", *log, "--out", str(home / "model"), "--set", "epochs=1"])
    checkpoint = load(home / "model", "cpu")
    assert checkpoint.settings.data.repeats == "keep"
    place = np.arange(40)
    positions = pd.DataFrame({"item": checkpoint.vocabulary.items, "x": place % 7, "y": place // 7})
    write_page(home / "page", checkpoint, positions)
    return home / "page", checkpoint


@needs_node
def test_ids_that_javascript_cannot_count_find_their_items(shop):
    folder, checkpoint = shop
    ids = [str(item) for item in checkpoint.vocabulary.items.tolist()]
    script = """
    const index = new TitleIndex(films);
    answer([films.item.map(String), given.ids.map((id) => films.title[index.find(`id:${id}`).row]),
      [given.ids[5], "Thing number 1"].map((title) => index.find(title).problem)]);
    """
    items, titles, problems = run_node(folder, script, ids=ids)
    assert items == ids and len(set(ids)) == 40
    assert titles == [f"Thing number {max(1, number)}" for number in range(40)]
    assert problems[0] == f"“{ids[5]}” is not a title here, but an id; write id:{ids[5]}"
    assert problems[1].endswith(f"is the title of 2 items; name one by its id: id:{ids[0]}, id:{ids[1]}")


def test_the_map_of_a_page_is_kept_whatever_its_ids(shop):
    folder, checkpoint = shop
    films, model = (folder / "data" / name for name in ("films.json", "model.safetensors"))
    before = films.read_bytes()
    assert None not in json.loads(before)["x"]
    write_page(folder, checkpoint, kept_positions(folder, model.read_bytes()))
    assert films.read_bytes() == before


@needs_node
def test_what_is_bought_again_may_be_recommended(shop, capsys):
    """As on the command line."""
    folder, checkpoint = shop
    histories = histories_of(checkpoint.vocabulary, [1, 3, 8, 40], np.random.default_rng(4))
    found = run_node(folder, RECOMMEND, requests=[(tokens.tolist(), {}) for tokens in histories])
    for tokens, films in zip(histories, found, strict=True):
        history = [f"id:{item}" for item in checkpoint.vocabulary.item_ids(tokens).tolist()]
        capsys.readouterr()
        main(["recommend", str(checkpoint.folder), "--json", "--history", *history])
        expected = json.loads(capsys.readouterr().out)["recommendations"]
        items = checkpoint.vocabulary.item_ids(np.array([film["token"] for film in films])).tolist()
        assert items == [film["item"] for film in expected] and len(items) == 10
        np.testing.assert_allclose([film["score"] for film in films], [film["score"] for film in expected], atol=0.01)


# The page in a browser


@pytest.fixture(scope="module")
def browser():
    if not (BROWSER and DRIVER):
        pytest.skip("no browser: install chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(service=Service(DRIVER), options=options)
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def visit(browser):
    """Opens a page of a folder, in a window of a size; afterwards the browser's log must be empty."""
    servers = []

    def open_page(folder, address="", width=1280, height=900):
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(f"http://127.0.0.1:{servers[-1].server_address[1]}/{address}")
        return browser

    yield open_page
    log = browser.get_log("browser")
    browser.get("about:blank")
    for server in servers:
        server.shutdown()
        server.server_close()
    assert not log, log


def wait_for(browser, what):
    """Long, for another program may keep the machine busy."""
    return WebDriverWait(browser, 60).until(lambda _: what(), "waited in vain for " + what.__name__)


def found(browser, selector):
    """The first such element, once the page's script has made it."""

    def element():
        return next(iter(browser.find_elements(By.CSS_SELECTOR, selector)), None)

    return wait_for(browser, element)


def texts(browser, selector):
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((x) => x.innerText)", selector
    )


def fits(browser):
    return browser.execute_script("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@needs_node
@pytest.mark.parametrize(("width", "height"), [(360, 740), (1280, 900)])
def test_two_films_give_a_list_reasons_and_a_map(visit, page, recommender, width, height):
    """With the keyboard alone; the list and the reasons are Python's."""
    browser = visit(page, "", width, height)
    box = found(browser, "#you [role=combobox]")
    for typed in ("spirited awa", "amelie"):
        box.send_keys(typed)

        def suggested():
            return browser.find_elements(By.CSS_SELECTOR, "#you [role=listbox]:not([hidden]) [role=option]")

        wait_for(browser, suggested)
        box.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_UP)
        assert box.get_attribute("aria-expanded") == "true"
        active = browser.find_element(By.ID, box.get_attribute("aria-activedescendant"))
        assert active.get_attribute("aria-selected") == "true"
        box.send_keys(Keys.ENTER)
    box.send_keys("alien" + Keys.ENTER)

    def three_chips():
        return len(texts(browser, "#you .chips li")) == 3

    wait_for(browser, three_chips)
    box.send_keys(Keys.BACKSPACE)
    items, _ = recommender.look_up(["Spirited Away", "Amelie"])
    expected = recommender.recommend_items(items, as_set=True)
    because = recommender.explain(items, expected["item"], as_set=True).idxmax()
    named = [expected.title.tolist(), recommender.items.title[because].tolist()]
    titles, reasons = run_node(page, "answer(given.named.map((titles) => titles.map(displayName)));", named=named)

    def all_reasons():
        return texts(browser, "#answer .because") == [f"because of {title}" for title in reasons]

    wait_for(browser, all_reasons)
    assert texts(browser, "#answer b") == titles
    assert f"#you={items[0]},{items[1]}" in browser.current_url
    browser.execute_script("document.querySelector('canvas').scrollIntoView()")
    count = """
    const canvas = document.querySelector("canvas"), { width, height } = canvas;
    const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    const { data } = copy.getImageData(0, 0, width, height);
    return data.filter((value, i) => i % 4 === 3 && value > 0).length;"""

    def a_map():
        return browser.execute_script(count) > 5_000

    wait_for(browser, a_map)
    assert fits(browser)
    policy = browser.find_element(By.CSS_SELECTOR, "meta[http-equiv=Content-Security-Policy]").get_attribute("content")
    assert "default-src 'none'" in policy and "unsafe" not in policy
    origins = "return [...new Set(performance.getEntriesByType('resource').map((entry) => new URL(entry.name).origin))]"
    assert browser.execute_script(origins) == [browser.execute_script("return location.origin")]


NASTY = [
    "<img src=x onerror=alert(1)><b>Bold</b> & brave (1999)",
    "🎬 Caf\u00e9 👩‍🚀",
    "L" * 5_000,
    "سلام (2001)",
    "$1 </script>",
]


def test_any_title_is_shown_as_text(visit, page, medium, tmp_path):
    shutil.copytree(page, tmp_path, dirs_exist_ok=True)
    films = json.loads((tmp_path / "data" / "films.json").read_text(encoding="utf-8"))
    rows = [films["token"].index(token) for token in range(1, 1 + len(NASTY))]
    for row, title in zip(rows, NASTY, strict=True):
        films["title"][row] = title
    films["genre_names"] = [f"<i>{name}" for name in films["genre_names"]]
    (tmp_path / "data" / "films.json").write_text(json.dumps(films), encoding="utf-8")
    address = "#you=" + ",".join(str(films["item"][row]) for row in rows)
    browser = visit(tmp_path, address, 360, 740)

    def reasons():
        return all(texts(browser, "#answer .because")) and texts(browser, "#answer b")

    wait_for(browser, reasons)
    shown = texts(browser, ".chips li span")
    assert shown[0] == "<img src=x onerror=alert(1)><b>Bold</b> & brave" and shown[1] == NASTY[1] and "سلام" in shown
    assert all("<i>" in line for line in texts(browser, "#answer .films small:nth-of-type(2)"))
    browser.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")

    def thoughts():
        return len(texts(browser, ".thought")) == len(NASTY)

    wait_for(browser, thoughts)
    assert not browser.find_elements(By.CSS_SELECTOR, "main img, .films i:not(.bar), .chips b") and fits(browser)


def test_the_page_of_a_shop_is_not_about_films(visit, shop, page):
    """Not in any word, shown or told, nor in an example; but the page of films is."""
    folder, checkpoint = shop
    first, second = checkpoint.vocabulary.items[[3, 7]].tolist()
    browser = visit(folder, f"#you={first},{second}&them={first}", 360, 740)

    def reasons():
        return all(texts(browser, "#answer .because")) and texts(browser, "#answer b")

    wait_for(browser, reasons)
    assert texts(browser, "#you .chips li span") == ["Thing number 3", "Thing number 7"]
    browser.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
    told = """
    const told = [...document.querySelectorAll("*")].flatMap((part) => [part.ariaLabel, part.title, part.placeholder]);
    return [document.title, document.body.innerText, ...told].filter(Boolean).join("\\n");"""
    words = re.compile("film|watch|movie|imdb|letterboxd|marvel|pixar", re.IGNORECASE)
    assert not (found := words.findall(browser.execute_script(told))), found
    assert "What comes next" in browser.title and "Items you like" in texts(browser, "#you .label")[0]
    browser = visit(page)

    def about():
        return "films" in texts(browser, "#about")[0]

    wait_for(browser, about)
    assert texts(browser, ".examples button") == ["Harry Potter", "Marvel", "Pixar"]
    assert "Letterboxd" in texts(browser, "#you .file")[0] and "GroupLens" in texts(browser, "footer")[0]
    assert browser.title == "What to watch next"


@pytest.mark.parametrize(
    ("change", "about"),
    [
        ({}, ("film", True)),
        ({"release": "movietweetings"}, ("film", False)),
        ({"release": "beauty"}, ("item", False)),
        ({"ratings_file": "log.csv"}, ("item", False)),
        ({"release": None}, ("item", False)),
    ],
)
def test_what_the_page_is_told_of_the_data(medium, change, about):
    changed = describe(replace(medium, settings=medium.settings.change(**change)))
    assert (changed["noun"], changed["movielens"], changed["allow_seen"]) == (*about, False)


def test_an_export_another_person_and_the_address(visit, page, recommender):
    browser = visit(page, "#them=1214,6")
    file = found(browser, "#you [type=file]")
    file.send_keys(str(CASES / "letterboxd" / "watched.csv"))

    def four_chips():
        return len(texts(browser, "#you .chips li")) == 4

    wait_for(browser, four_chips)
    assert "4 films of watched.csv" in texts(browser, "#you .notes")[0]
    assert re.search(r"#you=260,1196,1210,1198&them=1214%2C6|#you=260,1196,1210,1198&them=1214,6", browser.current_url)

    def for_both():
        return len(texts(browser, "#two .films li")) == 10

    wait_for(browser, for_both)
    browser.execute_script("document.querySelector('#think').open = true")

    def a_sentence():
        return (
            "Attention misleads" in texts(browser, "#think .status")[0]
            or "does not mislead" in texts(browser, "#think .status")[0]
        )

    wait_for(browser, a_sentence)
    first = browser.find_element(By.CSS_SELECTOR, ".thought button")
    first.send_keys(Keys.ARROW_DOWN)

    def moved():
        return "#you=1196,260,1210,1198" in browser.current_url

    wait_for(browser, moved)


def test_the_whole_page_is_small(page):
    kinds = (".js", ".html", ".css")
    sources = [path.read_text(encoding="utf-8") for path in SOURCES.glob("*") if path.suffix in kinds]
    assert sum(bool(line.strip()) for text in sources for line in text.splitlines()) < 1_500
    assert sum(path.stat().st_size for path in page.rglob("*") if path.is_file()) < 6e6


def test_the_map_that_comes_with_the_clone_is_of_the_shipped_weights(tmp_path):
    checkpoint = load(PROJECT / "pretrained" / "medium", "cpu")
    weights = {name: value.half().contiguous() for name, value in checkpoint.model.state_dict().items()}
    positions = kept_positions(tmp_path, safetensors.torch.save(weights))
    assert sorted(positions["item"]) == checkpoint.vocabulary.items.tolist()
    assert positions[["x", "y"]].min().tolist() == [0, 0] and positions[["x", "y"]].max().tolist() == [1000, 1000]
    assert kept_positions(tmp_path, b"other weights") is None
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "model.safetensors").write_bytes(b"other weights")  # and a page that is not whole
    assert kept_positions(tmp_path, b"other weights") is None
    (tmp_path / "data" / "films.json").write_text("{")
    assert kept_positions(tmp_path, b"other weights") is None
