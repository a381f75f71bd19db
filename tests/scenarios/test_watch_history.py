import json
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from bertrec_utils.common import PROJECT
from bertrec_utils.scenarios.titles import TitleIndex
from bertrec_utils.scenarios.watch_history import read_history, read_titles

CASES = Path(__file__).resolve().parents[1] / "cases"  # small inputs that people really had

IMDB = """Const,Your Rating,Date Rated,Title,Original Title,URL,Title Type,IMDb Rating,Runtime (mins),Year,Genres
tt0,9,2023-05-02,"Good, the Bad and the Ugly, The",x,https://x,Movie,8.8,161,1966,"Adventure, Western"
tt1,8,2021-01-31,Alien,Alien,https://x,Movie,8.5,117,1979,Horror
tt2,8,2020-01-31,Ozymandias,Ozymandias,https://x,TV Episode,9.9,47,2013,Drama
"""
IMDB_OLD = """"position","const","created","modified","description","Title","Title type","You rated","Year"
"1","tt0","Sat Mar  3 00:00:00 2012","","","Up","Feature Film","9","2009"
"2","tt1","Sat Dec 31 00:00:00 2011","","","Alien","Feature Film","8","1979"
"""
TRAKT = """watched_at,type,title,year,season,episode,trakt_id,tmdb_id,imdb_id
2024-02-11T20:15:00.000Z,episode,Severance,2022,1,3,180770,95396,tt11280740
2024-02-10T20:15:00.000Z,movie,Up,2009,,,1,2,tt1
2024-02-10T18:15:00.000Z,movie,Alien,1979,,,3,4,tt2
"""
NETFLIX = """Title,Date
"Stranger Things: Season 1: Chapter One: The Vanishing of Will Byers","1/3/20"
"Mission: Impossible","12/31/19"
"Kill Bill: Vol. 2","12/31/19"
"Kill Bill: Vol. 1","12/31/19"
"Unorthodox: Limited Series: Part 3","12/30/19"
"Heat","2/1/19"
"""
NO_TITLES = TitleIndex(pd.DataFrame({"item": [], "title": []}))
LATER, FIRST = "Later (2000)", "First (1999)"


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


@pytest.mark.parametrize(
    ("name", "text", "titles"),
    [
        ("ratings.csv", IMDB, ["Alien (1979)", "Good, the Bad and the Ugly, The (1966)"]),
        ("ratings.csv", IMDB_OLD, ["Alien (1979)", "Up (2009)"]),
        ("history.csv", TRAKT, ["Alien (1979)", "Up (2009)"]),
        # the newest first, so of one day the last comes first
        ("netflix.csv", NETFLIX, ["Heat", "Kill Bill: Vol. 1", "Kill Bill: Vol. 2", "Mission: Impossible"]),
        ("x.tsv", "Title\tYear\tDate\nLater\t2000.0\t2020-02-01\nFirst\t1999.0\t2020-01-01\n", [FIRST, LATER]),
        ("x.csv", "NAME;YEAR;WATCHED DATE\nLater;2000;1.12.2020\nFirst;1999;13.1.2020\n", [FIRST, LATER]),
        ("x.csv", "Name,Year,Date\nLater,2000,2/13/2020\nFirst,1999,12/1/2019\n", [FIRST, LATER]),
        ("x.csv", "Name,Year,Date\nNA,2000,2020-01-02\n,1999,2020-01-01\n", ["NA (2000)"]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252"])  # as Excel and old sites write
def test_exports_are_read_oldest_first(tmp_path, caplog, name, text, titles, encoding):
    path = write(tmp_path, name, text.replace("First", "Fürst"), encoding)
    assert read_history(path) == [title.replace("First", "Fürst") for title in titles]
    assert not caplog.messages


def test_only_what_stands_before_a_title_is_taken_for_a_bullet(tmp_path):
    told = [
        "(500) Days of Summer (2009)",
        "Mission: Impossible - Fallout (2018)",
        "Ben-Hur (1959)",
        "12 Angry Men (1957)",
    ]
    listed = "".join(f"{bullet}{title}\n" for bullet, title in zip(("", "2. ", "- ", "* "), told, strict=True))
    assert read_history(write(tmp_path, "films.txt", listed)) == told


def test_a_line_that_is_a_title_of_the_index_is_taken_whole(tmp_path):
    index = TitleIndex(pd.DataFrame({"item": [1, 2, 3], "title": ["7. Sinn", "# 1 Dad mug", "Up (2009)"]}))
    path = write(tmp_path, "mine.txt", "# mine\n7. SINN\n# 1 Dad mug\n8. Sinn\n- Up\n")
    assert read_titles(path, index) == ["7. SINN", "# 1 Dad mug", "Sinn", "Up"]


def test_episodes_are_counted_where_a_list_has_no_order_and_kept_where_there_are_none(tmp_path, caplog):
    path = write(tmp_path, "netflix.csv", NETFLIX)
    films = read_history(path)
    assert not caplog.messages and read_titles(path, NO_TITLES) == films
    assert caplog.messages == [f"{path}: titles that are taken for episodes of series (left out): 2"]
    assert len(read_titles(path, NO_TITLES, only_films=False)) == len(films) + 2


CASE_TITLES = {
    "histories/imdb_excel_us.csv": ["Alien (1979)", "Inception (2010)", "Up (2009)"],
    "histories/letterboxd_import.csv": ["Alien (1979)", "The Shawshank Redemption (1994)", "Inception (2010)"],
    "histories/letterboxd_list.csv": ["Alien (1979)", "Up (2009)"],
    "histories/lowercase.csv": ["Alien (1979)"],
    "histories/numbered.txt": ["Alien", "Up (2009)", "Inception", "The Matrix"],
    "histories/semicolon.csv": ["Alien (1979)"],
    "histories/letterboxd-user-2020.zip": [
        *("Star Wars (1977)", "The Empire Strikes Back (1980)", "Return of the Jedi (1983)"),
        "Raiders of the Lost Ark (1981)",
    ],
    "imdb-latin1/ratings.csv": [
        *("The Silence of the Lambs (1991)", "Hachi: A Dog's Tale (2009)"),
        *("The Courageous Heart of Irena Sendler (2009)", "The Way Back (2010)", "Selma (2014)"),
        *("Slumdog Millionaire (2008)", "Hook (1991)"),
    ],
}


@pytest.mark.parametrize(("name", "titles"), CASE_TITLES.items())
def test_files_that_people_had(caplog, name, titles):
    assert read_history(CASES / name) == titles
    assert any("no dates" in message for message in caplog.messages) == ("list" in name or name.endswith("txt"))


@pytest.mark.parametrize(
    ("name", "titles"),
    [
        (
            "watched.csv",
            [
                "Star Wars: Episode IV - A New Hope (a.k.a. Star Wars) (1977)",
                "Star Wars: Episode V - The Empire Strikes Back (1980)",
                "Star Wars: Episode VI - Return of the Jedi (1983)",
                "Raiders of the Lost Ark (Indiana Jones and the Raiders of the Lost Ark) (1981)",
            ],
        ),
        (
            "watched2.csv",
            [
                "My Neighbor Totoro (Tonari no Totoro) (1988)",
                "Laputa: Castle in the Sky (Tenkû no shiro Rapyuta) (1986)",
                "Monty Python and the Holy Grail (1975)",
                "Monty Python's Life of Brian (1979)",
            ],
        ),
    ],
)
def test_films_under_letterboxds_names(bundled, name, titles):
    index = TitleIndex(bundled.item_table())
    assert [index.titles[index.find(title)] for title in read_history(CASES / "letterboxd" / name)] == titles


def test_a_whole_export_of_letterboxd(tmp_path):
    """All films: by the first day in the diary, else by the day they were marked or rated. What was deleted is not."""
    header = "Date,Name,Year,Letterboxd URI"
    files = {
        "watched.csv": f"{header}\n2020-05-01,Up,2009,u\n2020-05-02,Heat,1995,u\n2020-05-03,Alien,1979,u\n",
        "diary.csv": f"{header},Rating,Rewatch,Tags,Watched Date\n"
        "2020-06-02,Alien,1979,u,5,Yes,,2020-06-01\n2020-05-03,Alien,1979,u,5,,,2019-01-01\n",
        "ratings.csv": f"{header},Rating\n2020-05-02,Heat,1995,u,4\n2018-01-01,M,1931,u,4\n",
        "watchlist.csv": f"{header}\n2020-05-01,Not Seen,1999,u\n",
        "deleted/diary.csv": f"{header},Watched Date\n2020-05-01,Gone,1999,u,2010-01-01\n",
    }
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    assert read_history(tmp_path / "export.zip") == ["M (1931)", "Alien (1979)", "Up (2009)", "Heat (1995)"]


def test_a_diary_has_one_order_alone_and_in_the_archive(tmp_path):
    """Heat was entered first for its second viewing; its first counts."""
    days = [("Heat,1995", "2021-01-01"), ("Alien,1979", "2020-06-01"), ("Up,2009", "2020-09-01")]
    days.append(("Heat,1995", "2019-01-01"))
    text = "Name,Year,Watched Date\n" + "".join(f"{film},{day}\n" for film, day in days)
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        archive.writestr("diary.csv", text)
    for path in (write(tmp_path, "diary.csv", text), tmp_path / "export.zip"):
        assert read_history(path) == ["Heat (1995)", "Alien (1979)", "Up (2009)"]


def test_months_and_days_that_nothing_tells_apart_are_named(tmp_path, caplog):
    told = "Name,Year,Date\nLater,2000,1/12/2020\nFirst,1999,2/11/2020\n"
    assert read_history(write(tmp_path, "a.csv", told)) == [LATER, FIRST]  # January before February
    assert "nothing tells whether dates such as 1/12/2020 begin with the month" in caplog.text
    caplog.clear()
    same = "Name,Year,Date\nLater,2000,2/3/2020\nFirst,1999,1/2/2020\n"  # one order either way
    assert read_history(write(tmp_path, "b.csv", same)) == [FIRST, LATER] and not caplog.messages


def test_films_without_a_date_come_first_and_are_counted(tmp_path, caplog):
    text = "Name,Year,Date\nLater,2000,2020-01-01\nFirst,1999,\n"
    assert read_history(write(tmp_path, "a.csv", text)) == [FIRST, LATER]
    assert "1 of 2 titles have no date" in caplog.text


def test_a_plain_list_keeps_its_order_and_drops_repeats(tmp_path, caplog):
    assert read_history(write(tmp_path, "mine.txt", "Up\n\n  Alien (1979) \nUp\n#Alive\n12 Angry Men\n")) == [
        *("Up", "Alien (1979)", "#Alive", "12 Angry Men")
    ]
    assert "mine.txt: it has no dates" in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "id,stars\n1,5\n", "no columns Name and Year"),
        ("a.csv", "Name,Year\n", "holds no titles"),
        ("a.csv", "", "no columns"),
        ("a.csv", 'Name,Year\n"Alien,1979\n', "is no whole CSV .*; export it again"),
        ("a.csv", "Name,Year\nA,1979,x,y\nB,1979\nC,1,2,3,4\n", "is no whole CSV"),
        ("a.txt", "\n \n", "holds no titles"),
        ("a.txt", "PK\0\1", "is no text"),
        ("a.json", '[{"show": {"title": "Lost"}}]', "holds no titles"),
        ("a.json", "[1]", "is JSON, but no list of films as Trakt has it .*; ask for CSV, or write its titles into a"),
        ("a.json", '[{"movie": "Alien"}]', "no list of films"),
        ("a.json", "[" * 100_000, "no list of films"),
        ("a.json", "{", "no list of films"),
        ("a.zip", "PK", "is no whole archive"),
    ],
)
def test_files_without_titles_are_errors(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        read_history(write(tmp_path, name, text))


def test_a_table_of_ids_is_told_to_be_a_list(tmp_path):
    with pytest.raises(
        ValueError, match=r"begins with 'item_id,qty'; or write one title or id:2707 a line into a .txt"
    ):
        read_history(write(tmp_path, "stock.csv", "item_id,qty\n1001,3\n"))


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.txt", ""), ("a.txt", "\ufeff\r\n"), ("a.txt", "# sold out today:\n"), ("a.csv", ""), ("a.csv", "Name,Year\n")],
)
def test_a_list_without_order_may_be_empty(tmp_path, name, text):
    path = write(tmp_path, name, text)
    assert read_titles(path, NO_TITLES) == []
    with pytest.raises(ValueError, match=r"holds no titles|has no columns"):
        read_history(path)


def test_an_archive_without_a_history_is_an_error(tmp_path):
    with zipfile.ZipFile(tmp_path / "trakt.zip", "w") as archive:
        archive.writestr("watched.json", "[]")
    with pytest.raises(ValueError, match=r"holds none of diary.csv, watched.csv, ratings.csv.*unpack it"):
        read_history(tmp_path / "trakt.zip")


def trakt(title, year, day, kind="movie", when="watched_at"):
    """An entry as Trakt exports it."""
    return {
        "id": 1,
        when: day and f"{day}T20:00:00.000Z",
        "type": kind,
        kind: {"ids": {}, "year": year, "title": title},
    }


def test_films_of_trakts_json(tmp_path, caplog):
    """Its API and its export have the same entries; newest first, as they come; a day may be missing."""
    history = [trakt("Up", 2009, "2020-05-03"), trakt("Lost", 2004, "2020-05-02", "episode")]
    history += [trakt("Amélie", 2001, "2020-05-01"), trakt("M", None, None)]
    assert read_history(write(tmp_path, "h.json", json.dumps(history))) == ["M", "Amélie (2001)", "Up (2009)"]
    assert "1 of 3 titles have no date" in caplog.text
    watched = [
        trakt(title, 1999, day, when="last_watched_at") for title, day in (("B", "2020-02-01"), ("A", "2020-01-01"))
    ]
    assert read_history(write(tmp_path, "w.json", json.dumps(watched))) == ["A (1999)", "B (1999)"]


def test_a_whole_export_of_trakt(tmp_path):
    """The films of all parts of the history, by the first day; without a history, those watched."""
    files = {
        "watched/watched-history-1.json": [trakt("Up", 2009, "2020-05-03"), trakt("Heat", 1995, "2020-05-02")],
        "watched/watched-history-10.json": [trakt("M", 1931, "2015-01-01")],
        "watched/watched-history-2.json": [trakt("Alien", 1979, "2019-01-01"), trakt("Up", 2009, "2018-01-01")],
        "watched/watched-movies.json": [trakt("Up", 2009, "2020-05-03", when="last_watched_at")],
        "lists/watchlist.json": [trakt("Not Seen", 1999, "2017-01-01", when="listed_at")],
    }
    for name, expected in (
        ("whole.zip", ["M (1931)", "Up (2009)", "Alien (1979)", "Heat (1995)"]),
        ("watched.zip", ["Up (2009)"]),
    ):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for file, entries in files.items():
                if name == "whole.zip" or "history" not in file:
                    archive.writestr(f"trakt/{file}", json.dumps(entries))
        assert read_history(tmp_path / name) == expected


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_history(tmp_path / "none.csv")
