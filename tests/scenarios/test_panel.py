import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from html import unescape

import ipywidgets as widgets
import nbformat
import numpy as np
import pandas as pd
import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from bertrec_utils.common import PROJECT
from bertrec_utils.data.sequences import Vocabulary
from bertrec_utils.scenarios.panel import MAX_REASONS, NO_FORMULAS, Panel
from bertrec_utils.scenarios.recommender import Recommender
from bertrec_utils.training.checkpoints import load

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture(scope="module")
def recommender():
    checkpoint = load(PROJECT / "pretrained" / "small")
    return Recommender(checkpoint.model, checkpoint.vocabulary, checkpoint.load_items())


def titles_in(panel):
    """The titles in the panel's table, best first."""
    rows = re.findall(r"<tr><td>\d+</td><td>(.*?)</td>", panel.table.value)
    return [unescape(row) for row in rows]


def type_and_click(panel, typed, position=0):
    panel.search.value = typed
    button = panel.suggestions.children[position]
    button.click()
    return button.description


def test_an_empty_panel_says_what_to_do(recommender):
    panel = Panel(recommender)
    assert "type a title" in panel.table.value
    assert panel._repr_mimebundle_()["text/html"] == panel.table.value


@pytest.mark.parametrize("k", [3, 10, 40])
def test_a_panel_shows_as_many_films_as_it_was_told(recommender, k):
    panel = Panel(recommender, ["Toy Story"], k=k)
    assert panel.k.value == k and len(titles_in(panel)) == k


def test_films_are_found_while_they_are_typed(recommender):
    panel = Panel(recommender)
    assert type_and_click(panel, "le fabul").startswith("Amelie")
    assert type_and_click(panel, "ghostbusters 2016") == "Ghostbusters (2016)"
    assert panel.search.value == "" and not panel.suggestions.children
    chosen = [unescape(chip.children[1].value) for chip in panel.chosen.children]
    assert chosen == [panel.titles[item] for item in panel.items]
    assert len(titles_in(panel)) == 10


def test_enter_takes_the_first_suggestion(recommender):
    panel = Panel(recommender)
    panel.search.value = "harry poter"
    panel.search._handle_custom_msg({"event": "submit"}, [])
    assert panel.titles[panel.items].tolist()[0].startswith("Harry Potter")


def test_a_title_that_nothing_has_is_named(recommender):
    panel = Panel(recommender)

    def said():
        return [unescape(text.value) for text in panel.suggestions.children if isinstance(text, widgets.HTML)]

    panel.search.value = "barbie"  # of which the release has none with five ratings
    assert said() == ["'barbie' is not a title here; perhaps one of these:"] and len(panel.suggestions.children) > 1
    panel.search.value = "Barbie (2023)"
    [sentence] = said()
    assert sentence.startswith("'Barbie (2023)' ")
    panel.search.value = "qqqqqqqqqq"
    assert said() == ["'qqqqqqqqqq' is not a title here"] and len(panel.suggestions.children) == 1
    for typed in ("", " ", "the ma", "ghostbusters 2016", "WALL-E", "amélie", "the matrix (1999)"):
        panel.search.value = typed
        assert said() == []


def test_a_title_typed_in_full_comes_before_more_popular_longer_ones(recommender):
    ratings = recommender.items.ratings
    first, second = (
        recommender.look_up([title])[0][0] for title in ("The Terminator (1984)", "Terminator 2: Judgment Day")
    )
    assert ratings[first] < ratings[second]
    panel = Panel(recommender)
    assert type_and_click(panel, "terminator") == "Terminator, The (1984)"
    assert type_and_click(panel, "terminator ") == "Terminator, The (1984)"
    assert type_and_click(panel, "terminato").startswith("Terminator 2")


def test_another_recommender_answers_when_it_is_chosen(recommender):
    class LeastRatedFirst:
        def score(self, histories):
            return np.tile(-recommender.log_popularity, (len(histories), 1))

    other = Recommender(LeastRatedFirst(), recommender.vocabulary, recommender.items.reset_index())
    panel = Panel({"network": recommender, "least rated": other}, ["Toy Story", "Alien"])
    first = titles_in(panel)
    panel.answered_by.value = other
    names = other.recommend(["Toy Story", "Alien"], as_set=True).title.str.replace(r" \(\d{4}\)$", "", regex=True)
    assert titles_in(panel) == names.tolist() != first
    panel.answered_by.value = recommender
    assert titles_in(panel) == first
    assert panel.answered_by not in Panel(recommender).widget.children  # nothing to choose from


def test_the_table_is_what_the_recommender_says(recommender):
    panel = Panel(recommender, ["Toy Story", "Alien"])
    names = [
        re.sub(r" \(\d{4}\)$", "", title) for title in recommender.recommend(["Toy Story", "Alien"], as_set=True).title
    ]
    assert titles_in(panel) == names
    panel.order.value = False
    in_order = recommender.recommend(["Toy Story", "Alien"]).title
    assert titles_in(panel) == [re.sub(r" \(\d{4}\)$", "", title) for title in in_order]


def test_films_can_be_moved_and_removed(recommender):
    panel = Panel(recommender, ["Toy Story", "Alien", "Amelie"])
    first, second, third = panel.items
    panel.chosen.children[2].children[0].click()
    assert panel.items == [first, third, second]
    panel.chosen.children[0].children[0].click()  # the first stays first
    assert panel.items == [first, third, second]
    panel.chosen.children[1].children[2].click()
    assert panel.items == [first, second]


def test_a_film_can_be_removed_twice_and_all_at_once(recommender):
    panel = Panel(recommender, ["Toy Story", "Alien", "Amelie"])
    first, second, third = panel.items
    for _ in range(2):  # the browser may send a second click before the button is gone
        panel.remove(second)
        panel.move_left(second)
    assert panel.items == [first, third]
    [clear] = [button for button in all_widgets(panel.widget) if getattr(button, "description", "") == "clear"]
    clear.click()
    assert not panel.items and not panel.chosen.children and "Nothing chosen yet" in panel.table.value
    type_and_click(panel, "alien")
    assert panel.items == [second] and len(titles_in(panel)) == 10


def test_a_click_on_why_shows_what_each_film_contributes(recommender):
    history = ["Harry Potter and the Chamber of Secrets", "Alien"]
    panel = Panel(recommender, history)
    items, _ = recommender.look_up(history)
    found = recommender.recommend_items(items, 10, as_set=True)
    whole, *without = recommender.log_probabilities([items, items[1:], items[:1]], as_set=True)
    details = re.findall(r"<details><summary>(.*?)</summary>(.*?)</details>", panel.table.value)
    assert len(details) == 10
    for film, (most, lines) in zip(found.item, details, strict=True):
        column = recommender.vocabulary.tokens([film])[0] - 1
        gains = dict(
            zip(
                ["Harry Potter and the Chamber of Secrets", "Alien"],
                [whole[column] - each[column] for each in without],
                strict=True,
            )
        )
        expected = [f"{gains[title]:+.1f} {title}" for title in sorted(gains, key=lambda title: -gains[title])]
        assert lines.split("<br>") == expected and most == max(gains, key=gains.get)
    assert "<details>" not in Panel(recommender, history[:1]).table.value  # of one film there is nothing to tell


def test_long_histories_are_explained_too_or_said_not_to_be(recommender):
    popular = recommender.items.loc[recommender.vocabulary.items].ratings.nlargest(MAX_REASONS + 1).index.tolist()
    panel = Panel(recommender)
    panel.order.value = False
    panel.items = popular[:-1]
    panel.show_chosen()
    assert panel.table.value.count("<summary>") == 10 and "Why is" not in panel.table.value
    panel.add(popular[-1])
    assert "<summary>" not in panel.table.value and f"up to {MAX_REASONS} films" in panel.table.value


def test_controls_change_the_list(recommender):
    panel = Panel(recommender, ["Harry Potter and the Chamber of Secrets", "Harry Potter and the Goblet of Fire"])
    assert sum(title.startswith("Harry Potter") for title in titles_in(panel)) >= 3
    panel.exclude_series.value = True
    assert not any(title.startswith("Harry Potter") for title in titles_in(panel))
    familiar = titles_in(panel)
    panel.penalty.value = 1.0
    assert titles_in(panel) != familiar
    panel.k.value = 20
    assert len(titles_in(panel)) == 20


def test_titles_cannot_break_the_table(recommender):
    panel = Panel(recommender, ["Toy Story"])
    found = recommender.recommend(["Toy Story"], 1).assign(title="<b>Bold & brave</b> (1999)", because=[[("<b>", 1.0)]])
    assert "&lt;b&gt;Bold &amp; brave&lt;/b&gt;" in panel.html(found) and "<b>" not in panel.html(found)


class CountingUp:
    """Scores item j as j."""

    def score(self, histories):
        return np.tile(np.arange(5, dtype=np.float32), (len(histories), 1))


def test_prices_in_titles_are_no_formulas():
    """JupyterLab looks for $ in HTML and in Labels; HTML can say that it has none, a Label cannot."""
    titles = ["was $9, now $5", "A$$hole (2000)", "USB_A $3 to USB_C_B $5", "Save $5 & 10% now, $3 off", "Five"]
    items = pd.DataFrame({"item": [1, 2, 3, 4, 5], "title": titles, "genres": "", "ratings": 1})
    recommender = Recommender(CountingUp(), Vocabulary(np.arange(1, 6)), items)
    panel = Panel(recommender, [*titles[:2], "no $3 and no $4", "Fives"])
    static = panel._repr_mimebundle_()["text/html"]
    for html in (panel.table.value, static):
        marked = re.findall(rf"<(p|table) class='{NO_FORMULAS}'.*?</\1>", html, re.DOTALL)
        assert "$" in html and len(marked) == html.count("<p") + html.count("<table")
        assert "$" not in re.sub(rf"<(p|table) class='{NO_FORMULAS}'.*?</\1>", "", html, flags=re.DOTALL)
    assert "&#x27;Fives&#x27; is unknown; did you mean &#x27;Five&#x27;, which is in this list?" in static
    assert {"tex2jax_ignore", "mathjax_ignore"} <= set(NO_FORMULAS.split())
    panel.search.value = "save"
    assert [button.description for button in panel.suggestions.children] == [titles[3]]
    labels = [
        widget.value for widget in all_widgets(panel.widget) if isinstance(widget, (widgets.Label, widgets.HTMLMath))
    ]
    assert labels == ["familiar", "distinctive"]


def test_a_panel_with_nothing_left_says_so():
    items = pd.DataFrame({"item": [1, 2, 3, 4, 5], "title": list("ABCDE"), "genres": "", "ratings": 1})
    panel = Panel(Recommender(CountingUp(), Vocabulary(np.arange(1, 6)), items, "book"), list("ABCDE"))
    assert "Nothing is left to recommend of the books that the model knows." in panel.table.value


def test_a_watchlist_is_a_box_to_tick():
    items = pd.DataFrame({"item": [1, 2, 3, 4, 5], "title": list("ABCDE"), "genres": "", "ratings": 1})
    recommender = Recommender(CountingUp(), Vocabulary(np.arange(1, 6)), items, "book")
    assert not any(
        getattr(box, "description", "") == "only from my watchlist" for box in all_widgets(Panel(recommender).widget)
    )
    panel = Panel(recommender, ["A"], only=["B", "no book", "D", "A"])
    assert titles_in(panel) == ["D", "B"]
    assert (
        panel.table.value.count("<p") == 1 and "Left out: &#x27;no book&#x27; is not a title here" in panel.table.value
    )
    [box] = [box for box in all_widgets(panel.widget) if getattr(box, "description", "") == "only from my watchlist"]
    box.value = False
    assert titles_in(panel) == ["E", "D", "C", "B"]
    box.value = True
    for title in ("b", "d"):
        type_and_click(panel, title)
    assert "Nothing is left to recommend of the books of your watchlist that the model knows." in panel.table.value
    assert titles_in(Panel(recommender, ["A"], only=[])) == []


def test_many_unknown_titles_are_one_note():
    items = pd.DataFrame({"item": [1, 2, 3, 4, 5], "title": list("ABCDE"), "genres": "", "ratings": 1})
    history = ["A", *(f"No {number}" for number in range(99))]
    panel = Panel(Recommender(CountingUp(), Vocabulary(np.arange(1, 6)), items), history)
    assert panel.table.value.count("<p") == 1 and "99 of 100 titles are unknown" in panel.table.value


def all_widgets(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from all_widgets(child)


@pytest.fixture
def jupyterlab(tmp_path):
    """JupyterLab on a notebook with the cells that 05 begins with; its address."""
    notebook = nbformat.read(PROJECT / "notebooks" / "05_scenarios.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    last = next(number for number, cell in enumerate(code) if cell.source.startswith("Panel("))
    notebook.cells = code[: last + 1]
    for cell in notebook.cells:
        cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, tmp_path / "panel.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = {name: str(tmp_path / name.lower()) for name in ("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")}
    quiet = tmp_path / "jupyterlab_settings_dir" / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True)
    (quiet / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        f"--port={port}",
        f"--notebook-dir={tmp_path}",
    ]
    with open(tmp_path / "server.log", "w") as log:
        server = subprocess.Popen(
            [*command, "--IdentityProvider.token=secret"],
            env=os.environ | folders | {"BERTREC_PRESET": "small"},
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{port}/lab/tree/panel.ipynb?token=secret"
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def browser():
    if not (BROWSER and DRIVER):
        pytest.skip("no browser: install chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1300,1250",
    ):
        options.add_argument(flag)
    driver = webdriver.Chrome(service=Service(DRIVER), options=options)
    try:
        yield driver
    finally:
        driver.quit()


def click_on(browser, selector, text):
    """Click on the element with this text, as soon as there is one."""

    def found(_):
        for element in browser.find_elements(By.CSS_SELECTOR, selector):
            if element.text.startswith(text):
                element.click()
                return True
        return False

    wait_for(browser, found)


def wait_for(browser, what):
    """Long, for another program may keep the machine busy; what the notebook shows is in the error."""
    try:
        return WebDriverWait(browser, 180, ignored_exceptions=[StaleElementReferenceException]).until(what)
    except TimeoutException as error:
        shown = browser.find_element(By.TAG_NAME, "body").text
        raise AssertionError(f"waited in vain; the page shows:\n{shown[-3000:]}") from error


def kernel_is_there(browser):
    """On a slow machine JupyterLab may ask for a kernel first: the one it proposes is the right one."""
    for button in browser.find_elements(By.CSS_SELECTOR, ".jp-Dialog button.jp-mod-accept"):
        button.click()
    ready = '.jp-Notebook-ExecutionIndicator[data-status="idle"]'
    return browser.find_elements(By.CSS_SELECTOR, ready)


def running(browser):
    """Run all cells, anew if the kernel was there too late to hear of it: then no cell has a number or a star."""
    prompts = [prompt.text for prompt in browser.find_elements(By.CSS_SELECTOR, ".jp-InputPrompt")]
    if any(re.search(r"[\d*]", prompt) for prompt in prompts):
        return True
    click_on(browser, ".lm-MenuBar-itemLabel", "Run")
    click_on(browser, ".lm-Menu-itemLabel", "Run All Cells")
    return False


def test_the_panel_in_jupyterlab(browser, jupyterlab, tmp_path):
    for _ in range(60):
        try:
            urllib.request.urlopen(jupyterlab, timeout=5).close()
            break
        except OSError:
            time.sleep(0.5)
    browser.get(jupyterlab)

    def rows():
        found = browser.find_elements(By.CSS_SELECTOR, ".bertrec-panel tbody tr")
        return [[cell.text for cell in row.find_elements(By.TAG_NAME, "td")] for row in found]

    before = wait_for(browser, lambda _: kernel_is_there(browser) and running(browser) and rows())
    assert len(before) == 10
    browser.find_element(By.CSS_SELECTOR, ".bertrec-panel input[type=text]").send_keys("amel")
    click_on(browser, ".bertrec-panel button", "Amelie")
    after = wait_for(browser, lambda _: rows() != before and rows())
    assert len(after) == 10 and [row[1] for row in after] != [row[1] for row in before]
    chips = [title.text for title in browser.find_elements(By.CSS_SELECTOR, ".bertrec-panel .widget-html")]
    assert any(chip.startswith("Amelie") for chip in chips)
    click_on(browser, ".bertrec-panel button", "✕")
    wait_for(browser, lambda _: rows() != after)
    logs = [
        entry for entry in browser.get_log("browser") if "Error" in entry["message"] and "widget" in entry["message"]
    ]
    assert not logs, json.dumps(logs)
