from collections import defaultdict

import pandas as pd
import pytest

from bertrec_utils.common import PROJECT
from bertrec_utils.scenarios.titles import (
    NewerTitle,
    TitleIndex,
    UnknownTitle,
    names_of,
    normalise,
    read_history,
    spellings,
    split_year,
)

HARD = {
    1: "Avengers, The (2012)",
    2: "Avengers, The (1998)",
    3: "The Lego Movie (2014)",
    4: "Amelie (Fabuleux destin d'Amélie Poulain, Le) (2001)",
    5: "Léon: The Professional (a.k.a. The Professional) (Léon) (1994)",
    6: "WALL·E (2008)",
    7: "Misérables, Les (1995)",
    8: "War of the Worlds (2005)",
    9: "War of the Worlds (2005)",
    10: "Ghostbusters (a.k.a. Ghost Busters) (1984)",
    11: "Ghostbusters (2016)",
    12: "Toy Story 3 (2010)",
    13: "Seven (a.k.a. Se7en) (1995)",
    14: "Harry Potter and the Sorcerer's Stone (a.k.a. Harry Potter and the Philosopher's Stone) (2001)",
    15: "Spider-Man (2002)",
    16: "(500) Days of Summer (2009)",
    17: "Professional, The (1981)",
    18: "Fast & Furious (2009)",
    19: "M (1931)",
    20: "Æon Flux (2005)",
    21: "Spy (2015)",
    22: "I Spy (2002)",
    23: "Help, The (2011)",
    24: "Help! (1965)",
    25: "Deadpool (2016)",
    26: "Dead Pool, The (1988)",
    27: "'burbs, The (1989)",
    28: "9 (2009)",
    29: "Nine (2009)",
    30: "$ (Dollars) (1971)",
    31: "*batteries not included (1987)",
    32: "Terminal",
    33: "Terminal, The (2004)",
    34: "Silence, The (2010)",
    35: "Silence (2011)",
    36: "Vitelloni, I (1953)",
    37: "Avventura, L' (Adventure, The) (1960)",
    38: "I Am Curious (Yellow) (1967)",
    39: "I Am Curious (Blue) (1968)",
    40: "Planet Earth (2006-2010)",
    41: "千と千尋の神隠し (2001)",
    42: "Die Hard (1988)",
    43: "Babies (Bébé(s)) (2010)",
    44: "E.T. the Extra-Terrestrial (1982)",
    45: "Eternal Sunshine of the Spotless Mind (2004)",
}
RATINGS = {1: 9, 2: 3, 8: 2, 9: 40, 10: 50, 11: 5, 5: 100, 21: 60, 23: 60, 25: 60, 33: 60, 38: 7, 45: 90}
UNRATED = pd.DataFrame({"item": list(HARD), "title": list(HARD.values())})
ITEMS = UNRATED.assign(ratings=[RATINGS.get(item, 0) for item in HARD])


@pytest.mark.parametrize(
    ("title", "item"),
    [
        ("Avengers, The (2012)", 1),
        ("The Avengers (2012)", 1),
        ("the avengers", 1),  # no year: the one with more ratings
        ("The Avengers (1998)", 2),
        ("The Avengers (1997)", 2),  # one year off
        ("Lego Movie, The (2014)", 3),
        ("lego movie", 3),
        ("Amélie", 4),
        ("Le Fabuleux destin d'Amélie Poulain", 4),
        ("fabuleux destin d'amelie poulain (2001)", 4),
        ("Leon: The Professional", 5),
        ("Léon (1994)", 5),
        ("The Professional (1994)", 5),
        ("The Professional", 17),  # a main name comes before an alias
        ("WALL-E (2008)", 6),
        ("Wall E", 6),
        ("walle", 6),
        ("Les Miserables (1995)", 7),
        ("War of the Worlds (2005)", 9),  # two films, one title: the one with more ratings
        ("Ghost Busters (1984)", 10),
        ("Ghostbusters (a.k.a. Ghost Busters) (1984)", 10),
        ("Ghostbusters (2016)", 11),
        ("Ghostbusters", 10),
        ("Se7en", 13),
        ("Harry Potter and the Philosopher\u2019s Stone", 14),
        (HARD[14], 14),
        ("spiderman", 15),
        ("(500) Days of Summer (2009)", 16),  # parentheses that are no alias
        ("500 days of summer", 16),
        ("Fast and Furious", 18),
        ("m", 19),
        ("Aeon Flux", 20),
        ("I Spy", 22),  # not Spy: `I` is no article here
        ("Help!", 24),
        ("help", 24),
        ("The Help", 23),
        ("The Dead Pool", 26),
        ("Dead Pool", 26),
        ("Deadpool", 25),
        ("The 'burbs (1989)", 27),
        ("the burbs", 27),
        ("9 (2009)", 28),
        ("Nine (2009)", 29),
        ("$", 30),
        ("Dollars (1971)", 30),
        ("$ (Dollars) (1971)", 30),
        ("*batteries not included", 31),
        ("Batteries Not Included", 31),
        ("Terminal", 32),
        ("Terminal (2018)", 32),  # a film without a year may be of any
        ("Terminal (2004)", 33),  # but one that is of the year comes first
        ("The Silence", 34),
        ("The Silence (2011)", 35),  # the very year before the article
        ("The Silence (2009)", 34),
        ("I Vitelloni", 36),
        ("vitelloni", 36),
        ("L\u2019avventura", 37),
        ("avventura", 37),
        ("The Adventure (1960)", 37),
        ("I Am Curious", 38),
        ("I Am Curious (Blue)", 39),
        ("planet earth (2006)", 40),
        ("千と千尋の神隠し", 41),
        ("Bébé(s)", 43),
    ],
)
def test_title_look_up_on_hard_cases(title, item):
    assert TitleIndex(ITEMS).find(title) == item


@pytest.mark.parametrize(
    "title", ["Toy Story 2 (1999)", "Toy Story", "Avengers, The (2005)", "Spy (2002)", "Hard", "E.T."]
)
def test_no_guess_where_no_film_fits(title):
    with pytest.raises(UnknownTitle):
        TitleIndex(ITEMS).find(title)


def test_unknown_title_lists_the_closest():
    with pytest.raises(
        UnknownTitle, match=r"'Toy Storry 3' is not a title here; closest: Toy Story 3 \(2010\)"
    ) as raised:
        TitleIndex(UNRATED).find("Toy Storry 3")
    assert raised.value.closest[0] == "Toy Story 3 (2010)"


def test_newer_title_is_named_as_such():
    with pytest.raises(NewerTitle, match=r"'Toy Story 4 \(2019\)' is newer than this release.* 2016"):
        TitleIndex(UNRATED).find("Toy Story 4 (2019)")


def test_the_last_year_of_the_bundled_release(shelf):
    with pytest.raises(NewerTitle, match="whose last film is of 2023"):
        shelf[0].find("Toy Story 5 (2026)")


@pytest.mark.parametrize("title", ["", "   ", "(2001)", "!!!", "日本"])
def test_a_title_of_nothing_is_unknown_and_like_nothing(title):
    with pytest.raises(UnknownTitle) as raised:
        TitleIndex(UNRATED).find(title)
    assert raised.value.closest == []


def test_an_alias_never_overrides_the_main_name_asked_for():
    assert TitleIndex(ITEMS).find("M (a.k.a. Ghostbusters)") == 19


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Jurassic", "Jurassic Park (1993)"),
        (
            "Harry Potter",
            "Harry Potter and the Sorcerer's Stone (a.k.a. Harry Potter and the Philosopher's Stone) (2001)",
        ),
        ("Borat", "Borat: Cultural Learnings of America for Make Benefit Glorious Nation of Kazakhstan (2006)"),
        ("Good, the Bad", "Good, the Bad and the Ugly, The (Buono, il brutto, il cattivo, Il) (1966)"),
        ("Pulp Fictoin", "Pulp Fiction (1994)"),
        ("E.T.", "E.T. the Extra-Terrestrial (1982)"),
    ],
)
def test_suggestions_are_what_a_person_meant(shelf, title, expected):
    index, _ = shelf
    assert index.closest(title)[0] == expected


def test_suggestions_are_different_films(shelf):
    index, _ = shelf  # two names of one film begin with Harry Potter
    assert sum("Harry Potter" in title for title in index.closest("Harry Potter")) == 3


def test_names_that_are_only_an_article_survive():
    assert set(spellings("A")) == {"a"} and set(spellings("The")) == {"the"}


def test_spellings_from_strict_to_tolerant():
    expected = ("the 'burbs", "the burbs", "burbs", "burbs")
    assert spellings("'burbs, The") == spellings("The \u2019Burbs") == expected
    assert spellings("Dead Pool, The")[-1] == spellings("Deadpool")[-1]


@pytest.mark.parametrize(
    ("title", "names"),
    [
        ("Up (2009)", ["Up"]),
        ("M*A*S*H (a.k.a. MASH) (1970)", ["M*A*S*H (a.k.a. MASH)", "M*A*S*H", "MASH"]),
        ("A.K.A. Cassius Clay (1970) ", ["A.K.A. Cassius Clay"]),
        ("Babies (Bébé(s)) (2010)", ["Babies (Bébé(s))", "Babies", "Bébé(s)"]),
        ("You Are (Not) Alone (2007)", ["You Are (Not) Alone"]),
        ("Two (Zwei) (Deux) (1999)", ["Two (Zwei) (Deux)", "Two", "Zwei", "Deux"]),
        ("(2001)", []),
    ],
)
def test_names_in_a_title(title, names):
    assert names_of(title) == names


@pytest.mark.parametrize(
    ("title", "name", "year"),
    [
        ("2012 (2009)", "2012", 2009),
        ("The Office (2005–2013)", "The Office", 2005),
        ("Lost (2004-)", "Lost", 2004),
        ("Moonlight", "Moonlight", None),
        ("(500) Days of Summer", "(500) Days of Summer", None),
    ],
)
def test_year_of_a_title(title, name, year):
    assert split_year(title) == (name, year)


def test_accents_and_punctuation_fold_away():
    assert normalise("Brødre & L’Été — WALL·E [REC]²!") == "brodre and l ete wall e rec 2"


# Films of the bundled release whose name and year another film there shares. Asked with both, that one is found.
SHADOWED = {
    26982: "Men with Guns (1997)",
    64997: "War of the Worlds (2005)",
    114240: "Aladdin (1992)",
    114342: "Force Majeure (Turist) (2014)",
    144426: "Clockstoppers (2002)",
    144606: "Confessions of a Dangerous Mind (2002)",
    179333: "Veronica (2017)",
    181751: "Lagaan: Once Upon a Time in India (2001)",
    195209: "Code 8",  # listed twice, once with its year
    206117: "The Lonely Island Presents: The Unauthorized Bash Brothers Experience (2019)",
    258279: "Good Boys (2019)",
}
BEHIND = {"The", "A", "An", "La", "Le", "Les", "L'", "El", "Il", "I", "Das", "Der", "Die", "Det", "Los", "Las", "Une"}


def as_people_write(name):
    """`Avengers, The` is The Avengers."""
    rest, _, article = name.rpartition(", ")
    return name if not rest or article not in BEHIND else f"{article} {rest}".replace("L' ", "L'")


@pytest.fixture(scope="module")
def shelf(bundled):
    """The index of the bundled release, and by item: title, main name, year and the most rated film of that name."""
    films = bundled.item_table()
    index = TitleIndex(films)
    popularity = dict(zip(films.item, films.ratings, strict=True))
    films["name"] = [names_of(title)[:2][-1] for title in films.title]
    films["year"] = [split_year(title)[1] for title in films.title]
    namesakes = defaultdict(list)
    for item, name in zip(films.item, films.name, strict=True):
        namesakes[as_people_write(name).casefold()].append(item)
    films["best"] = [
        max(namesakes[as_people_write(name).casefold()], key=popularity.__getitem__) for name in films.name
    ]
    return index, films


def item_or_none(index, title):
    try:
        return index.find(title)
    except UnknownTitle:
        return None


def test_every_bundled_film_answers_to_its_main_name(shelf):
    index, films = shelf
    for name, best in zip(films.name, films.best, strict=True):
        assert item_or_none(index, name) == best, name
        assert item_or_none(index, as_people_write(name)) == best, name


def test_every_bundled_film_answers_to_its_name_and_year(shelf):
    index, films = shelf
    missed_as_listed, missed_as_written = {}, {}
    for item, title, name, year in films[["item", "title", "name", "year"]].itertuples(index=False):
        if item_or_none(index, title) != item:
            missed_as_listed[item] = title
        if item_or_none(index, as_people_write(name) + ("" if pd.isna(year) else f" ({year:.0f})")) != item:
            missed_as_written[item] = title
    assert missed_as_written == SHADOWED
    # its alias tells this one
    assert missed_as_listed == {item: title for item, title in SHADOWED.items() if item != 114342}


@pytest.mark.parametrize(
    ("typed", "first"),
    [
        ("blade runner 2049", "Blade Runner 2049 (2017)"),
        ("blade runner 1982", "Blade Runner (1982)"),
        ("fantasia 2000", "Fantasia 2000 (1999)"),
        ("ghostbusters (2016)", "Ghostbusters (2016)"),
        ("ghostbusters", "Ghostbusters (a.k.a. Ghost Busters) (1984)"),
        (
            "harry poter",
            "Harry Potter and the Sorcerer's Stone (a.k.a. Harry Potter and the Philosopher's Stone) (2001)",
        ),
        ("le fabuleux", "Amelie (Fabuleux destin d'Amélie Poulain, Le) (2001)"),
    ],
)
def test_suggestions_while_a_title_is_typed(shelf, typed, first):
    index, _ = shelf
    assert index.titles[index.suggest(typed)[0]] == first


@pytest.mark.parametrize("typed", ["", " ", "?", "(1999)"])
def test_nothing_is_suggested_for_nothing(shelf, typed):
    index, _ = shelf
    assert not index.suggest(typed)


# Lists of watched films

IMDB = """Const,Your Rating,Date Rated,Title,Original Title,URL,Title Type,IMDb Rating,Runtime (mins),Year,Genres
tt0,9,2023-05-02,"Good, the Bad and the Ugly, The",x,https://x,Movie,8.8,161,1966,"Adventure, Western"
tt1,8,2021-01-31,Alien,Alien,https://x,Movie,8.5,117,1979,Horror
"""


def write(tmp_path, name, text, encoding="utf-8"):
    path = tmp_path / name
    path.write_text(text, encoding=encoding)
    return path


def test_letterboxd_diary_in_the_order_of_watching():
    """The example repeats Amélie; entries were made days after watching."""
    titles = read_history(PROJECT / "data" / "example_diary.csv")
    assert titles[:2] == ["Amélie (2001)", "The Grand Budapest Hotel (2014)"]
    assert len(titles) == 7 and titles[-1] == "A Film That Nobody Made (2011)"


def test_the_day_of_watching_counts_before_the_day_of_writing(tmp_path):
    text = "Date,Name,Year,Watched Date\n2020-01-01,Second,1999,2019-05-02\n2020-01-02,First,1998,2019-05-01\n"
    assert read_history(write(tmp_path, "diary.csv", text)) == ["First (1998)", "Second (1999)"]


def test_imdb_ratings_oldest_first(tmp_path):
    path = write(tmp_path, "ratings.csv", IMDB, "utf-8-sig")  # with a byte order mark, as Excel writes it
    assert read_history(path) == ["Alien (1979)", "Good, the Bad and the Ugly, The (1966)"]


def test_a_plain_list_keeps_its_order_and_drops_repeats(tmp_path):
    assert read_history(write(tmp_path, "mine.txt", "Up\n\n  Alien (1979) \nUp\n")) == ["Up", "Alien (1979)"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "id,stars\n1,5\n", "no columns Name and Year"),
        ("a.csv", "Name,Year\n", "holds no titles"),
        ("a.csv", "", "no columns"),
        ("a.txt", "\n \n", "holds no titles"),
    ],
)
def test_files_without_titles_are_errors(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        read_history(write(tmp_path, name, text))


def test_a_missing_file_and_another_encoding(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_history(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_history(write(tmp_path, "old.txt", "Amélie", "latin-1"))
