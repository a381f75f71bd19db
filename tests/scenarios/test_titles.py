from collections import defaultdict
from pathlib import Path

import pandas as pd
import pytest

from bertrec_utils.data.logs import load_interactions
from bertrec_utils.scenarios.titles import (
    AmbiguousTitle,
    BareId,
    NewerTitle,
    TitleIndex,
    UnknownTitle,
    known_aliases,
    look_alikes,
    names_of,
    normalise,
    short_names,
    spellings,
    split_year,
    sum_up,
)

CASES = Path(__file__).resolve().parents[1] / "cases"  # small inputs that people really had

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
    46: "Star Wars: Episode V - The Empire Strikes Back (1980)",
    47: "Star Wars: The Last Jedi (2017)",
    48: "Monty Python's Life of Brian (1979)",
    49: "Laputa: Castle in the Sky (Tenkû no shiro Rapyuta) (1986)",
    50: "X2: X-Men United (2003)",
    51: "William Shakespeare's Romeo + Juliet (1996)",
    52: "Rocky II (1979)",
    53: "John Wick: Chapter Two (2017)",
    54: "Batman: Mask of the Phantasm (1993)",
    55: "Batman: Year One (2011)",
    56: "Three Colors: Blue (Trois couleurs: Bleu) (1993)",
    57: "Star Trek II: The Wrath of Khan (1982)",
    58: "Paranormal Activity (2009)",
    59: "Mulholland Drive (2001)",
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
        ("war of the worlds", 9),  # two films, one title: the one with more ratings
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
        ("id:8", 8),
        ("id: 9", 9),
        ("The Empire Strikes Back (1980)", 46),
        ("Star Wars: The Empire Strikes Back (1980)", 46),
        ("Star Wars: Episode V – The Empire Strikes Back", 46),
        ("Star Wars: Episode VIII - The Last Jedi (2017)", 47),
        ("Life of Brian (1979)", 48),
        ("Castle in the Sky (1986)", 49),
        ("X2 (2003)", 50),
        ("Romeo + Juliet (1996)", 51),
        ("Romeo & Juliet (1996)", 51),
        ("Rocky 2", 52),
        ("Star Trek 2: The Wrath of Khan", 57),
        ("John Wick: Chapter 2 (2017)", 53),
        ("Three Colours: Blue", 56),
        ("Star Trek: The Wrath of Khan (1982)", 57),
        ("Paranormal Activity (2007)", 58),  # an alias with a year of its own
        ("Mulholland Dr.", 59),
    ],
)
def test_title_look_up_on_hard_cases(title, item):
    assert TitleIndex(ITEMS).find(title) == item


@pytest.mark.parametrize(
    "title",
    [
        *("Toy Story 2 (1999)", "Toy Story", "Avengers, The (2005)", "Spy (2002)", "Hard", "E.T."),
        *("id:99", "Batman (1993)"),
        "Empire Strikes Back",  # a film is shortened only with its year
        "The Empire Strikes Back (1981)",
        "Blue (1993)",  # one word is too little
    ],
)
def test_no_guess_where_no_film_fits(title):
    with pytest.raises(UnknownTitle):
        TitleIndex(ITEMS).find(title)


def test_two_films_with_one_title_are_an_error_that_names_both():
    both = r"is the title of 2 items; name one by its id: id:8 War of the Worlds \(2005\) \| id:9 War of the Worlds"
    for title in ("War of the Worlds (2005)", "The War of the Worlds (2005)"):
        with pytest.raises(AmbiguousTitle, match=both) as raised:
            TitleIndex(ITEMS).find(title)
        assert raised.value.items == [8, 9]


def test_unknown_title_lists_the_closest():
    with pytest.raises(
        UnknownTitle, match=r"'Toy Storry 3' is not a title here; closest: Toy Story 3 \(2010\)"
    ) as raised:
        TitleIndex(UNRATED).find("Toy Storry 3")
    assert raised.value.closest[0] == "Toy Story 3 (2010)"


def test_newer_title_is_named_as_such():
    with pytest.raises(NewerTitle, match=r"'Toy Story 4 \(2019\)' is newer than this release.* 2017"):
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
    """Unless another has that name as its whole title: the exact title wins."""
    index, films = shelf
    for name, best in zip(films.name, films.best, strict=True):
        for typed in (name, as_people_write(name)):
            if typed not in index.same_title:
                assert item_or_none(index, typed) == best, typed


def test_every_bundled_film_answers_to_its_title_and_to_its_name_and_year(shelf):
    """Itself, or an error that lists it, or the film whose whole title that is; never another one."""
    index, films = shelf
    shared = 0
    for item, title, name, year in films[["item", "title", "name", "year"]].itertuples(index=False):
        for typed in (title, as_people_write(name) + ("" if pd.isna(year) else f" ({year:.0f})")):
            try:
                found = [index.find(typed)]
            except AmbiguousTitle as error:
                found = error.items
            assert item in found or (typed != title and index.titles[found[0]] == typed) or pd.isna(year), typed
            shared += len(found) - 1
    assert shared < len(films) / 250


def test_every_alias_finds_the_film_that_it_is_for(shelf):
    index, films = shelf
    years = films.year.astype("Int64").astype(str)
    items = dict(zip(films.name + " (" + years + ")", films.item, strict=True))
    aliases = [(title, alias) for title, names in known_aliases().items() for alias in names if title in items]
    assert len(aliases) > 80
    for title, alias in aliases:
        typed = alias if split_year(alias)[1] else f"{alias} ({split_year(title)[1]})"
        assert index.find(typed) == items[title], alias


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


def test_a_blank_around_a_title_changes_nothing():
    index = TitleIndex(pd.DataFrame({"item": [1, 2], "title": ["Cosmos (1980)", "Cosmos "], "genres": ""}))
    assert {index.find(title) for title in ("Cosmos", "Cosmos ", " Cosmos")} == {2}


def test_ids_that_differ_in_case_alone_find_themselves():
    index = TitleIndex(load_interactions(CASES / "case-sensitive-ids" / "log.csv").item_table())
    assert {item: index.find(item) for item in index.titles} == {item: item for item in index.titles}
    assert len(index.titles) == 40 and "dQw4a" in index.titles and "dQw4A" in index.titles


def test_odd_ids_find_themselves_and_nothing_else():
    index = TitleIndex(load_interactions(CASES / "odd-ids" / "log.csv").item_table())
    assert len(index.titles) == 30
    for item in index.titles:
        assert index.find(item) == index.find(f"id:{item}") == item
    for other in ("item (2022)", "A B", "ITEM", "q", "naive", "id:nothing"):
        with pytest.raises(UnknownTitle):
            index.find(other)


def test_an_item_with_a_title_is_found_by_its_id_only_if_that_is_said():
    index = TitleIndex(pd.DataFrame({"item": ["B01", "B02"], "title": ["First", "B01"]}))
    assert (index.find("id:B01"), index.find("B01"), index.find("first")) == ("B01", "B02", "B01")
    assert index.suggest("id:B01") == ["B01"] and index.suggest("id:B03") == []
    index = TitleIndex(pd.DataFrame({"item": [1001, 1002], "title": ["Thing number AA", "Thing number AB"]}))
    with pytest.raises(BareId, match="'1001' is not a title here, but an id; for that item, write id:1001"):
        index.find("1001")
    with pytest.raises(UnknownTitle, match=r"'1003' is not a title here$"):
        index.find("1003")


def test_the_very_title_is_found_by_nothing_else():
    titles = ["Mug", "MUG ", "Cup", "cup", "id", "Paranormal Activity (2009)"]
    index = TitleIndex(pd.DataFrame({"item": [1, 2, 3, 4, "id", 6], "title": titles}))
    expected = {" Mug": [1], "MUG": [2], "mug": [1, 2], "CUP": [3, 4], "id": ["id"], "ID": [], "The Mug": []}
    expected["Paranormal Activity (2007)"] = []  # a film's other name
    assert {title: index.titled(title) for title in expected} == expected
    assert index.find("Paranormal Activity (2007)") == 6
    with pytest.raises(UnknownTitle) as raised:
        index.find("Paranormal Activity (2019)", exact=True)
    assert type(raised.value) is UnknownTitle and raised.value.closest == ["Paranormal Activity (2009)"]


@pytest.mark.parametrize(
    ("name", "shorter"),
    [
        (
            "Star Wars: Episode V - The Empire Strikes Back",
            [
                *("Star Wars: The Empire Strikes Back", "Star Wars"),
                *("Episode V - The Empire Strikes Back", "The Empire Strikes Back"),
            ],
        ),
        (
            "Friday the 13th Part VI: Jason Lives",
            ["Friday the 13th: Jason Lives", "Friday the 13th Part VI", "Jason Lives"],
        ),
        ("2001: A Space Odyssey", ["2001: A Space Odyssey", "2001", "A Space Odyssey"]),
        ("Lee Daniels' The Butler", ["The Butler"]),
        ("Schindler's List", []),
        ("Alien", []),
    ],
)
def test_what_a_name_is_shortened_to(name, shorter):
    assert short_names(name) == shorter


def unknown_of(*titles):
    index, unknown = TitleIndex(UNRATED), {}
    for title in titles:
        with pytest.raises(UnknownTitle) as raised:
            index.find(title)
        unknown[title] = raised.value
    return unknown


def test_many_unknown_titles_are_one_line():
    assert sum_up(unknown_of("Toy Storry 3", "Nope"), 9) == [
        "'Toy Storry 3' is not a title here; closest: Toy Story 3 (2010)",
        "'Nope' is not a title here",
    ]
    line = "1,031 of 2,338 titles are unknown: 'No 0', 'No 1', 'No 2' ... and 1,028 more"
    assert sum_up(unknown_of(*(f"No {number}" for number in range(1031))), 2338) == [line]
    ids = {"No": UnknownTitle("No")} | {str(number): BareId(str(number)) for number in range(11, 17)}
    line = "7 of 9 titles are unknown: 'No', '11', '12' ... and 4 more; 6 of them are ids: write id:11 and so on"
    assert sum_up(ids, 9) == [line]


@pytest.mark.parametrize(
    ("unknown", "title", "is_alike"),
    [
        ("Brian (1979)", "Monty Python's Life of Brian (1979)", True),
        ("Life of Brien", "Life of Brian (1979)", True),
        ("Amelie from Montmartre (2001)", "Amelie (Fabuleux destin d'Amélie Poulain, Le) (2001)", True),
        ("Le Fabuleux destin d'Amelie Poulin", "Amelie (Fabuleux destin d'Amélie Poulain, Le) (2001)", True),
        ("Brian (1999)", "Monty Python's Life of Brian (1979)", False),
        ("It (1990)", "Italian Job, The (1990)", False),
        ("!!!", "Alien (1979)", False),
        ("Alien (1979)", "??? (1979)", False),
    ],
)
def test_an_unknown_title_that_is_like_one_of_a_list(unknown, title, is_alike):
    sentence = f"{unknown!r} is unknown; did you mean {title!r}, which is in this list?"
    assert look_alikes([unknown], ["Heat (1995)", title]) == [sentence] * is_alike
