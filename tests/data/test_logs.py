import csv
import gzip
import io
import lzma
import os
import random
import re
import sys
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bertrec_utils.data.dataset import build_dataset, build_sequences, load_dataset
from bertrec_utils.data.grouplens import RATING_TYPES, read_movies, read_ratings
from bertrec_utils.data.logs import Interactions, from_frame, load_interactions, log_name
from bertrec_utils.data.sequences import Vocabulary
from bertrec_utils.evaluation.baselines import RecentPopularity
from bertrec_utils.settings import DataSettings
from conftest import rows

CASES = Path(__file__).parents[1] / "cases"  # what people really have
FUZZED_FILES = int(os.environ.get("BERTREC_FUZZ", 1000))  # per reader; BERTREC_FUZZ=10000 for a thorough run

RATINGS = [(1, 31, 2.5, 1260759144), (1, 1029, 3, 1260759179), (1, 7, 4.5, 1260759145), (2, 31, 3, 835355493)]
FLAGS = "|0|0|0|0|0|1|0|0|0|0|0|0|0|0|1|0|0|0|0"
READERS = {
    "ratings.csv": lambda path: read_ratings(path, ","),
    "ratings.dat": lambda path: read_ratings(path, "::"),
    "u.data": lambda path: read_ratings(path, "\t"),
    "movies.csv": lambda path: read_movies(path, ",", "utf-8"),
    "movies.dat": lambda path: read_movies(path, "::", "latin-1"),
    "u.item": lambda path: read_movies(path, "|", "latin-1"),
    "shop.csv": load_interactions,
    "visits.csv": load_interactions,
    "visits.inter": load_interactions,
    "walks.txt": load_interactions,
    "items.csv": lambda path: load_interactions(path.with_name("log.csv"), path),
}
GOOD = {
    "ratings.csv": "userId,movieId,rating,timestamp\n" + "".join(f"{u},{i},{r},{t}\n" for u, i, r, t in RATINGS),
    "ratings.dat": "".join(f"{u}::{i}::{r}::{t}\n" for u, i, r, t in RATINGS),
    "u.data": "".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in RATINGS),
    "movies.csv": 'movieId,title,genres\n7,Sabrina (1995),Comedy\n31,"Misérables, Les ""1""",Drama|War\n32,NA,War\n',
    "movies.dat": "7::Sabrina (1995)::Comedy|Romance\n31::Misérables, Les (1995)::Drama\n32::None (2001)::War\n",
    "u.item": f"7|Sabrina (1995)|01-Jan-1995||http://x/?7{FLAGS}\n31|Misérables, Les (1995)|||{FLAGS}\n",
    "shop.csv": 'item,user,rating,timestamp\nsocks,7,1,100\n"hat, red",8,4.5,101\nNA,7,-2,99.5\nsocks,8,3,1e3\n',
    "visits.csv": "user,item,timestamp,note\nann,1,2020-01-31,\nbob,2,2020-01-31T12:00:00.25,\nann,2,2019-12-31 10Z,\n",
    "visits.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t7\t3\t881250949\n22\t8\t\t87\n",
    "walks.txt": "1 5 7 3\n2 5 9\n1 4\n",
    "items.csv": 'item,title,genres\n1,Hat,Red\n2,"Socks, ""warm""",\n3,,\n',
}

ODD_VALUES = (
    *("", "-1", "inf", "-inf", "nan", "NaN", "NA", "None", "True", "1e400", "1e39", "-0", "0.5", "1_0", "٣", "0x1F"),
    *("3000000000", "9223372036854775807", "9223372036854775808", "9" * 30, "9" * 400, "x" * 5000, "1 2", " 5 "),
    *("now", "NaT", "2020", "20200131", "2020-02-30", "9999-12-31", "0001-01-01", "2020-01-31T25:00", "2020-W05"),
    *("é", "\udcff", "\u2028", '"a', 'b"c', '"a\nb"', "user", "item"),
)


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding(name)))
    (folder / "log.csv").write_text("user,item,timestamp\n1,1,1\n1,2,2\n")
    return path


def encoding(name):
    return "latin-1" if name in ("movies.dat", "u.item") else "utf-8"


def tables(read):
    return [read.ratings, read.items] if isinstance(read, Interactions) else [read]


def assert_well_formed(read):
    """The documented columns and dtypes, and no value that is missing, infinite or impossible."""
    own = isinstance(read, Interactions)
    for table in tables(read):
        assert len(table) and not table.drop(columns="rating" if own else [], errors="ignore").isna().any(axis=None)
        if "title" in table:
            assert list(table) == ["item", "title", "genres"]
            assert table.item.is_unique and (table.title != "").all()
        elif own:
            assert list(table) == list(RATING_TYPES)
            assert table.rating.dtype == "float64"
            assert table.timestamp.dtype in ("int64", "float64") and np.isfinite(table.timestamp).all()
        else:
            assert table.dtypes.astype(str).to_dict() == RATING_TYPES
            assert np.isfinite(table.rating).all() and (table >= 0).all(axis=None)


def refusal(reader, path):
    """The message of the ValueError that `reader` must raise: plain, one line, with the file's name."""
    with pytest.raises(ValueError) as raised:
        reader(path)
    message = str(raised.value)
    assert raised.type is ValueError and str(path) in message and len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r", "\n\n", "\n \n"])
def test_good_files_are_read_with_any_line_ends_and_blank_lines(name, line_end, tmp_path):
    good = GOOD[name].rstrip("\n")
    read = READERS[name](write(tmp_path, name, good.replace("\n", line_end) + line_end))
    assert_well_formed(read)
    expected = READERS[name](write(tmp_path, name, good))
    for table, its_expected in zip(tables(read), tables(expected), strict=True):
        assert table.equals(its_expected)


NUL, LATIN = "\0", "\udce9"  # a byte that is no UTF-8


@pytest.mark.parametrize(
    ("name", "row", "found"),
    [
        ("ratings.csv", "1,31,,1260759144", "expected user,item,rating,timestamp, found '1,31,,1260759144'"),
        ("ratings.csv", "1,31,4.0", "expected user,item,rating,timestamp"),
        ("ratings.csv", "1,31,4.0,100,5", "expected user,item,rating,timestamp"),
        ("ratings.csv", "1,31,4.0,12607.5,3", "expected user,item,rating,timestamp"),
        ("ratings.csv", "1;31;4.0;100", "expected user,item,rating,timestamp"),
        ("ratings.csv", "1,31,inf,100", "expected user,item,rating,timestamp"),
        ("ratings.csv", "1,31,1e300,100", "expected user,item,rating,timestamp"),
        ("ratings.csv", "1,31,-1,100", "expected user,item,rating,timestamp"),
        ("ratings.csv", "-1,31,4.0,100", "expected user,item,rating,timestamp"),
        ("ratings.csv", "2147483648,31,4.0,100", "expected user,item,rating,timestamp"),
        ("ratings.csv", "1,31,4.0,9223372036854775808", "expected user,item,rating,timestamp"),
        ("ratings.csv", "1,31,4.0," + "9" * 30, "expected user,item,rating,timestamp"),
        ("ratings.csv", '1,31,"4.0,100', "expected user,item,rating,timestamp"),
        ("ratings.csv", f"1,31,4.0{NUL},100", "expected text saved as utf-8"),
        ("ratings.csv", f"1,31,4.0,100{LATIN}", "expected text saved as utf-8"),
        ("ratings.dat", "1::1193::5", "expected user::item::rating::timestamp"),
        ("ratings.dat", "1::1193::five::978300760", "expected user::item::rating::timestamp"),
        ("ratings.dat", "1::1193::5::978300760::9", "expected user::item::rating::timestamp"),
        ("ratings.dat", "1:9:1193::5::978300760", "expected user::item::rating::timestamp"),
        ("ratings.dat", "<html>", "expected user::item::rating::timestamp, found '<html>'"),
        ("u.data", "1\t2", "expected user<tab>item<tab>rating<tab>timestamp"),
        ("movies.csv", "8,Sabrina", "expected item,title,genres, found '8,Sabrina'"),
        ("movies.csv", "8,Sabrina,Comedy,Drama", "expected item,title,genres"),
        ("movies.csv", "8,,Comedy", "expected item,title,genres"),
        ("movies.csv", "2147483648,Sabrina,Comedy", "expected item,title,genres"),
        ("movies.csv", '8,"Sabrina,Comedy', "expected values in closed quotes or none"),
        ("movies.csv", "8," + "x" * 200_000 + ",Comedy", "expected values in closed quotes or none"),
        ("movies.csv", "7,Sabrina (1995),Comedy", "expected each film once"),
        ("movies.csv", f"8,Mis{LATIN}rables,Comedy", "expected text saved as utf-8"),
        ("movies.dat", "Sabrina", "expected item::title::genres, found 'Sabrina'"),
        ("movies.dat", f"8::Sab{NUL}rina::Comedy", "expected text saved as latin-1"),
        ("u.item", "8|Sabrina|||" + FLAGS[:-1] + "2", "expected item|title|date|date|address|19 flags"),
        ("shop.csv", "hat,8,3", "timestamp '' must not be empty"),
        ("shop.csv", ",8,3,102", "item '' must not be empty"),
        ("shop.csv", "hat,,3,102", "user '' must not be empty"),
        ("shop.csv", "hat,8,3,102,9", "expected 4 values as in the first line, found 'hat,8,3,102,9'"),
        ("shop.csv", "hat,8,3,inf", "timestamp 'inf' is not a finite 64-bit number"),
        ("shop.csv", "hat,8,3,nan", "timestamp 'nan' is not a finite 64-bit number"),
        ("shop.csv", "hat,8,3," + "9" * 30, "timestamp '9{30}' is not a finite 64-bit number"),
        ("shop.csv", "hat,8,3,2020-01-31", "timestamp '2020-01-31' is not a finite 64-bit number, as the first"),
        ("shop.csv", 'hat,"8,3,102', "expected values in closed quotes or none"),
        ("shop.csv", f"h{NUL}at,8,3,102", "expected text saved as utf-8"),
        ("shop.csv", f"caf{LATIN},8,3,102", "expected text saved as utf-8"),
        ("visits.csv", "cy,2,10/1/2020,", "timestamp '10/1/2020' is neither a number nor a date like 2020-01-31"),
        ("visits.csv", "cy,2,9999-12-31,", "timestamp '9999-12-31' is neither .* of the years 1678 to 2261"),
        ("visits.csv", "cy,2,100,", "timestamp '100' is neither a number nor"),
        ("visits.csv", "cy,2,now,", "timestamp 'now' is neither a number nor"),
        ("visits.csv", "cy,2,2020/02/01,", "timestamp '2020/02/01' is neither a number nor"),
        ("visits.inter", "22\t8", "timestamp '' must not be empty"),
        ("visits.inter", "22\t8\t3\t4\t5", "expected 4 values as in the first line"),
        ("visits.inter", "\t8\t3\t4", "user '' must not be empty"),
        ("walks.txt", "7", "expected whole numbers with spaces between, a user and then items, found '7'"),
        ("walks.txt", "1 2 x", "expected whole numbers with spaces between"),
        ("walks.txt", "1,2", "expected whole numbers with spaces between"),
        ("items.csv", "2,Shirt,", "item '2' is listed before with other values"),
        ("items.csv", ",Shirt,", "item '' must not be empty"),
    ],
)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_the_malformed_line_is_named(name, row, found, ending, tmp_path):
    # blank lines count, and good rows after the bad one do not hide it
    good = GOOD[name].splitlines()
    lines = [*good, "", row, good[-1].replace("32", "33").replace("31|", "33|").replace("3,,", "4,,")]
    content = "".join(line + ending for line in lines).encode(encoding(name), "surrogateescape")
    message = refusal(READERS[name], write(tmp_path, name, content))
    assert re.search(re.escape(f"{name}, line {len(good) + 2}: ") + found.replace("|", r"\|"), message), message


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("ratings.csv", "", "line 1: expected the header userId,movieId,rating,timestamp, found ''"),
        ("ratings.csv", "userId,movieId,rating,timestamp\n", "holds no ratings"),
        ("ratings.csv", "1,31,4.0,100\n1,32,4.0,101\n", "line 1: expected the header userId"),
        ("ratings.csv", "userId,movieId,rating,rating\n1,31,4.0,100\n", "line 1: expected the header userId"),
        ("ratings.csv", "userId,movieId,rating,timestamp\n1,31,4.0,100,5\n", "line 2: expected user"),
        ("ratings.dat", "", "holds no ratings"),
        ("ratings.dat", "1::31::4::100::5\n1::31::4::100::5\n", "line 1: expected user"),
        ("movies.csv", "a,b,c\nx,y,z\n", "line 1: expected the header movieId,title,genres, found 'a,b,c'"),
        ("movies.csv", "movieId,title,genres\n", "holds no films"),
        ("u.item", "", "holds no films"),
        ("shop.csv", "", "holds no rows"),
        ("shop.csv", "user^item^timestamp\na^b^1\n", "line 1: one column, 'user.item.timestamp'; separate the values"),
        ("shop.csv", "user,item,timestamp\na,b,5-Jan-2020\n", "line 2: timestamp .* write dates as 2020-01-31"),
        ("shop.csv", '{"user": "a", "item": "b", "timestamp": 1}\n{"user"', "line 2: Expecting .*, found '{\"user\"'"),
        ("shop.csv", '{"user": "a", "item": "b"}\n', "the columns 'user, item' do not tell the timestamp"),
        ("shop.csv", "user,item,timestamp\n", "holds no rows"),
        (
            "shop.csv",
            "user,item\na,b\n",
            "line 1: the columns 'user, item' do not tell the timestamp.*timestamp=none if",
        ),
        ("shop.csv", "user,item,timestamp,user\na,b,1,c\n", r"line 1: .* do not tell the user \(user or user\?\)"),
        ("shop.csv", "who,what,when\na,b,1\n", r"line 1: the columns 'who, what, when' do not tell .* \(--columns\)"),
        ("shop.csv", "A1,B1,5.0,1369699200\n", "line 1: .*by number, user=1, if there is no header"),
        (
            "shop.csv",
            "sessionId,userId,item,date\na,b,c,d\n",
            r"line 1: .*\(sessionId or userId\?\); tell user=sessionId",
        ),
        ("shop.csv", "1,2\n3,4\n", "line 1: the columns '1, 2' do not tell the user, the item, the timestamp"),
        ("shop.csv", "user,item,timestamp\na,b,1/2/2020\na,c,3/4/2020\n", "line 2: .*which is the day.* 2020-01-31"),
        ("shop.csv", "user,item,timestamp\na,b,13/2/2020\na,c,3/14/2020\n", "line 2: .*which is the day"),
        ("shop.csv", "user,item,timestamp\na,b,13/2/2020\na,c,31/2/2020\n", "line 3: timestamp '31/2/2020' is neither"),
        ("walks.txt", "1 2 3 4\n5 6 7 8\n", "line 1: 4 numbers, as on every line, and no header; tell user=1"),
        ("walks.txt", "1\t2\t3\n", "line 1: the columns '1, 2, 3' do not tell"),
        ("shop.csv", "user,item,timestamp\na,b,1,9\na,c,2,9\n", "line 2: expected 3 values"),
        ("shop.csv", 'user,item,timestamp\na,"b,1\na",c,2\n', "line 2: expected values in closed quotes"),
        ("shop.csv", "user,item,timestamp\na,b,1\n".encode("utf-16"), "line 1: expected text saved as utf-8"),
        (
            "items.csv",
            "item,label\n1,Hat\n",
            "line 1: the columns 'item, label' do not tell the title; tell title=NAME",
        ),
    ],
)
def test_a_file_of_another_kind_is_refused(name, content, found, tmp_path):
    assert re.search(f"{name}(, |: | )" + found, refusal(READERS[name], write(tmp_path, name, content)))


def test_odd_but_valid_films(tmp_path):
    rows = '1,None (2001),(no genres listed)\n2,NA,War\n3,"Misérables, Les ""1"" (1995)",Drama|War\n'
    movies = read_movies(write(tmp_path, "movies.csv", "movieId,title,genres\n" + rows), ",", "utf-8")
    assert movies.values.tolist() == [
        [1, "None (2001)", "(no genres listed)"], [2, "NA", "War"], [3, 'Misérables, Les "1" (1995)', "Drama|War"],
    ]  # fmt: skip


def test_own_log_with_text_ids(tmp_path):
    log = load_interactions(write(tmp_path, "shop.csv", "item,user,timestamp\nsocks,ann,3\nhat,ann,5\n"))
    assert log.ratings.to_dict("list") == {
        "user": ["ann", "ann"], "item": ["socks", "hat"], "rating": [1.0, 1.0], "timestamp": [3, 5],
    }  # fmt: skip
    assert set(log.items.title) == {"socks", "hat"}


def test_the_item_table_counts_ratings_also_of_items_without_any(tmp_path):
    (tmp_path / "items.csv").write_text("item,title,genres\nhat,A hat,Red\nscarf,A scarf,\n")
    path = write(tmp_path, "shop.csv", "item,user,timestamp\nsocks,ann,3\nhat,ann,5\nhat,bob,5\n")
    table = load_interactions(path, tmp_path / "items.csv").item_table()
    assert table.to_dict("list") == {
        "item": ["hat", "scarf", "socks"], "title": ["A hat", "A scarf", "socks"],
        "genres": ["Red", "", ""], "ratings": [2, 0, 1],
    }  # fmt: skip
    assert table.ratings.dtype == "int64"


def test_own_log_keeps_ids_as_they_are_written(tmp_path):
    rows = "7,NA,2020-01-31\n8,001,2020-01-31T12:00:00\n10,1,2019-12-31\n"
    ratings = load_interactions(write(tmp_path, "shop.csv", "user,item,timestamp\n" + rows)).ratings
    assert ratings.user.tolist() == [7, 8, 10]  # plain whole numbers
    assert ratings.item.tolist() == ["NA", "001", "1"]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["2020-01-31", "2019-12-31T12:00", "1969-12-31T23:59:59"], [1_580_428_800, 1_577_793_600, -1]),
        (["1970-01-01T00:00:00.9", "1970-01-01T00:00:00.000001", "1970-01-01 02:00+02:00"], [0.9, 1e-6, 0.0]),
        (["2020-01-31T00:00:00.5", "1969-12-31T23:59:59.75"], [1_580_428_800.5, -0.25]),
        (["2020-01-31 00:00:00 UTC", "2020-01-31T00:00:00Z", "2020-01-31 00:00"], [1_580_428_800] * 3),
        (["2020/01/31", "2020/01/30 12:00:30"], [1_580_428_800, 1_580_385_630]),
        (["1/31/2020 8:05", "02/01/2020"], [1_580_457_900, 1_580_515_200]),
        (
            ["1/31/2020 12:05 AM", "2/1/2020 3:45:10 pm", "2/1/2020 12:00PM", "2/1/2020 13:00"],
            [1_580_429_100, 1_580_571_910, 1_580_558_400, 1_580_562_000],
        ),
        (["31/1/2020 8:05:00", "1.2.2020"], [1_580_457_900, 1_580_515_200]),
        (["1700000000123456789", "-5"], [1_700_000_000_123_456_789, -5]),
        (["0.5", "1e3"], [0.5, 1000.0]),
    ],
)
def test_numbers_stay_as_they_are_and_dates_become_seconds(texts, expected, tmp_path):
    rows = "".join(f"a,{item},{text}\n" for item, text in enumerate(texts))
    read = load_interactions(write(tmp_path, "shop.csv", "user,item,timestamp\n" + rows)).ratings.timestamp
    assert read.tolist() == expected
    assert read.dtype == type(expected[0])


def test_dates_a_microsecond_apart_stay_in_order(tmp_path):
    rows = "".join(f"a,{item},2020-01-31T12:00:00.{item:06}\n" for item in (3, 1, 2))
    read = load_interactions(write(tmp_path, "shop.csv", "user,item,timestamp\n" + rows)).ratings
    assert read.sort_values("timestamp").item.tolist() == [1, 2, 3]
    assert read.timestamp.is_unique


@pytest.mark.parametrize(
    "write_time",
    ["{:%Y-%m-%d %H:%M:%S}", "{:%Y-%m-%dT%H:%M:%S.%f}", "{:%Y-%m-%dT%H:%M+00:00}", "{seconds:.0f}", "{seconds}"],
)
def test_recent_popularity_counts_the_last_days_of_a_log_in_any_format(write_time, tmp_path):
    """The newest row is of noon on 31 January; a day and a half before it is midnight on the 30th."""
    times = {7: "2020-01-29 23:59", 5: "2020-01-30 00:01", 6: "2020-01-31 12:00", 8: "2019-01-01 00:00"}
    content = "user,item,timestamp\n"
    for item, text in times.items():
        time = datetime.fromisoformat(text).replace(tzinfo=UTC)
        content += f"a,{item},{write_time.format(time, seconds=time.timestamp())}\n"
    log = load_interactions(write(tmp_path, "shop.csv", content))
    popularity = RecentPopularity(log.ratings, Vocabulary(np.array([5, 6, 7, 8])), days=1.5)
    assert popularity.score(rows([1])).tolist() == [[1, 1, 0, 0]]


def test_a_log_saved_by_excel_is_read(tmp_path):
    path = write(tmp_path, "shop.csv", "\ufeffuser,item,timestamp\r\na,1,1\r\na,2,2\r\n".encode())
    assert load_interactions(path).ratings.user.tolist() == ["a", "a"]


@pytest.mark.parametrize("suffix", ["gz", "bz2", "zip", "xz", "tar", "zst"])
def test_a_plain_file_is_read_whatever_its_name(suffix, tmp_path):
    path = tmp_path / f"log.csv.{suffix}"  # pandas would unpack it
    path.write_text("user,item,timestamp\na,1,1\n")
    assert load_interactions(path).ratings.item.tolist() == [1]


def zip_of(content, *names):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names or ("log.csv", "__MACOSX/._log.csv"):
            archive.writestr(name, content)
    return packed.getvalue()


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zip_of])
def test_a_packed_log_is_read_whatever_its_name(pack, tmp_path):
    (tmp_path / "log.csv").write_bytes(pack(b"user,item,timestamp\na,1,1\n"))
    assert load_interactions(tmp_path / "log.csv").ratings.item.tolist() == [1]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (zip_of(b"user", "a.csv", "b.csv"), "holds 2 files; unpack it, and give one of them"),
        (zip_of(b"user,item,timestamp")[:-30], "cannot be unpacked"),
        (gzip.compress(b"user,item,timestamp\na,1,1\n")[:-9], "is damaged"),
        (lzma.compress(b"user,item,timestamp\na,1,1\n")[:-9], "is damaged"),
    ],
)
def test_a_packed_log_that_cannot_be_read_is_named(content, problem, tmp_path):
    assert problem in refusal(load_interactions, write(tmp_path, "log.csv.gz", content))


def test_a_line_of_a_packed_log_is_named(tmp_path):
    path = write(tmp_path, "log.zip", zip_of(b"user,item,timestamp\na,1,1\na,,1\n"))
    assert "line 3: item '' must not be empty" in refusal(load_interactions, path)


LAYOUTS = {  # the same log: ann, 7 and NA; how it is told, what is said of it
    "shop.csv": ("user,item,timestamp\nann,7,5\nann,NA,6\n", None, ""),
    "spare.csv": (",user,item,session,timestamp,date\n0,ann,7,1,5,x\n1,ann,NA,1,6,y\n", None, ""),
    "names.csv": ("userId,movieId,rating,Unix_Review-Time\nann,7,,5\nann,NA,x,6\n", None, "timestamp=Unix_Review-Time"),
    "events.csv": ("time,visitorid,event,itemid\n5,ann,view,7\n6,ann,view,NA\n", None, "user=visitorid item=itemid"),
    "some.tsv": ("session_id\tarticle_id\tts\nann\t7\t5\nann\tNA\t6\n", None, "user=session_id item=article_id"),
    "r.tsv": ('"user"\t"asin"\t"ts"\n"ann"\t"7"\t5\n"ann"\t"NA"\t6\n', None, "item=asin"),
    "semi.csv": ("user;item;timestamp\nann;7;5\nann;NA;6\n", None, ""),
    "spaces.txt": ("user item timestamp\nann 7 5\nann NA 6\n", None, ""),
    "colons.dat": ("user::item::timestamp\nann::7::5\nann::NA::6\n", None, ""),
    "told.csv": (
        "who is it,what,user\nann,7,5\nann,NA,6\n",
        "user=who is it item=what timestamp=user",
        "user=who is it ",
    ),
    "bare.csv": ("ann,5,7\nann,6,NA\n", "user=1 item=3 timestamp=2", "user=1 item=3 timestamp=2"),
    "mark.csv": ("\ufeffann,5,7\nann,6,NA\n", "user=1 item=3 timestamp=2", "user=1"),
    "shop.jsonl": (
        '{"ts": 5, "reviewerID": "ann", "asin": 7}\n{"asin": "NA", "reviewerID": "ann", "ts": 6}\n',
        None,
        "user=reviewerID item=asin timestamp=ts",
    ),
    "shop.json": (
        '[\n {"ts": 5, "reviewerID": "ann", "asin": 7},\n {"asin": "NA", "reviewerID": "ann", "ts": 6}\n]\n',
        None,
        "user=reviewerID item=asin timestamp=ts",
    ),
    "order.csv": ("item,user\n7,ann\nNA,ann\n", "timestamp=none", "timestamp=none: the rows are in order of time"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_log_is_read_in_every_layout(name, tmp_path, capsys):
    content, told, said = LAYOUTS[name]
    ratings = load_interactions(write(tmp_path, name, content), columns=told).ratings
    assert ratings.user.tolist() == ["ann", "ann"] and ratings.item.tolist() == ["7", "NA"]
    assert ratings.timestamp.tolist() == ([0, 1] if name == "order.csv" else [5, 6])
    out, err = capsys.readouterr()
    assert not out and (err.startswith(f"{name}: ") and said in err and err.count("\n") == 1 if said else not err)


ROW = '{"user": 1, "item": 2, "timestamp": 1}'


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (ROW.replace("1", '{"$oid": "5f"}', 1), r"row 1: user .*'\$oid': '5f'.* is a nested value"),
        (f"{ROW}\n{ROW.replace('2', '[3]')}", r"row 2: item '\[3\]' is a nested value"),
        (ROW.replace("1}", '{"$date": "2020-01-31"}}'), r"row 1: timestamp .*2020-01-31.* is a nested value"),
        (f"{ROW}\n\n5\n{ROW}\n", "line 3: expected an object in braces.* found '5'"),
        (f"{ROW}\nnull\n", "line 2: expected an object in braces"),
        (f'[{ROW},\n "end"]', "value 2 of the list is '\"end\"', not an object"),
    ],
)
def test_json_that_is_no_table_is_refused(content, found, tmp_path):
    assert re.search("log.json(, |: )" + found, refusal(load_interactions, write(tmp_path, "log.json", content)))


def test_nested_values_of_parquet_are_refused(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"user": [1, 1], "item": [[1, 2], [3]], "timestamp": [1, 2]})
    frame.to_parquet(tmp_path / "log.parquet")
    message = refusal(load_interactions, tmp_path / "log.parquet")
    assert re.search(r"row 1: item '\[1 2\]' is a nested value; give the text or number in it a column", message)


def test_genres_in_a_list_are_read(tmp_path):
    """As in the descriptions of Amazon's products."""
    titles = write(tmp_path, "items.json", '{"asin": 1, "title": "A hat", "category": ["Clothing", "Hats"]}\n')
    assert load_interactions(tmp_path / "log.csv", titles).items.values.tolist() == [
        [1, "A hat", "Clothing|Hats"], [2, "2", ""],
    ]  # fmt: skip


def test_a_blank_rating_stops_nothing(tmp_path):
    log = load_interactions(write(tmp_path, "shop.csv", GOOD["shop.csv"] + "hat,8,,102\nhat,9,good,103\n"))
    np.testing.assert_array_equal(log.ratings.rating, [1, 4.5, -2, 3, np.nan, np.nan])


@pytest.mark.parametrize("told", ["who", "users=who", "user=", "user=who item"])
def test_columns_are_told_by_what_they_are(told, tmp_path):
    with pytest.raises(ValueError, match=r"told as user=NAME item=NAME timestamp=NAME|do not tell the"):
        load_interactions(write(tmp_path, "shop.csv", "who,what,when\na,b,1\n"), columns=told)


def test_columns_of_both_files_are_told(tmp_path, capsys):
    (tmp_path / "items.csv").write_text("what;id;label;price;kind\nx;1;Hat;5;Red\n")
    log = write(tmp_path, "shop.csv", "who,what,when\na,x,1\n")
    told = "user=who item=what timestamp=when title=label"
    with pytest.raises(ValueError, match=r"items\.csv, line 1: .* do not tell the id \(what or id\?\)"):
        load_interactions(log, tmp_path / "items.csv", columns=told)
    read = load_interactions(log, tmp_path / "items.csv", columns=told + " id=what genres=kind")
    assert read.items.values.tolist() == [["x", "Hat", "Red"]]
    assert "items.csv: id=what title=label genres=kind" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["ratings.csv", "ratings.dat", "u.data"])
@pytest.mark.parametrize("titles", ["movies.csv", "movies.dat", "u.item", "films.item"])
def test_files_of_grouplens_and_recbole_are_logs_too(name, titles, tmp_path):
    films = GOOD.get(
        titles, "item_id:token\tmovie_title:token_seq\tclass:token_seq\n7\tSabrina (1995)\tComedy\n31\tA\tB\n"
    )
    log = load_interactions(write(tmp_path, name, GOOD[name]), write(tmp_path, titles, films))
    expected = READERS[name](tmp_path / name)
    assert log.ratings.values.tolist() == expected.values.tolist()
    assert (log.ratings.user.dtype, log.ratings.item.dtype) == ("int64", "int64")
    titled = log.items.set_index("item").title
    assert titled[7] == "Sabrina (1995)" and titled[1029] == "1029"
    if titles in READERS:
        assert titled[31] == READERS[titles](tmp_path / titles).set_index("item").title[31]


def test_columns_of_a_log_told_by_number_are_not_those_of_its_titles(tmp_path):
    films, log = write(tmp_path, "movies.dat", GOOD["movies.dat"]), write(tmp_path, "log.txt", "5,7,ann\n6,32,ann\n")
    read = load_interactions(log, films, columns="user=3 item=2 timestamp=1")
    assert read.items.title.tolist() == ["Sabrina (1995)", "Misérables, Les (1995)", "None (2001)"]
    told = "user=3 item=2 timestamp=1 id=2 title=3"
    for header in ("", "nr,isbn,name\n"):
        titles = write(tmp_path, "items.csv", header + "book,7,Seven\nb,32,Many\n")
        assert load_interactions(log, titles, columns=told).items.title.tolist() == ["Seven", "Many"]


@pytest.mark.parametrize("encoded", ["utf-8", "latin-1"])
def test_films_of_ml_10m_and_ml_1m_are_read_in_their_encodings(encoded, tmp_path):
    (tmp_path / "movies.dat").write_bytes(GOOD["movies.dat"].encode(encoded))
    log = load_interactions(write(tmp_path, "ratings.dat", GOOD["ratings.dat"]), tmp_path / "movies.dat")
    assert "Misérables, Les (1995)" in set(log.items.title)


def case(name):
    """A file of tests/cases, and its rows as Python's own reader has them."""
    with (CASES / name).open(encoding="utf-8", newline="") as file:
        return CASES / name, list(csv.DictReader(file))


@pytest.mark.parametrize(
    "name",
    [
        *("case-sensitive-ids/log.csv", "odd-ids/log.csv", "ten-items/log.csv", "repeats/wiki-head.csv"),
        *("log-grows/log.csv", "tiny-logs/4items.csv", "tiny-logs/all-same-time.csv", "tiny-logs/one-user-50.csv"),
    ],
)
def test_cases_are_read_as_they_are_written(name):
    path, expected = case(name)
    log = load_interactions(path)
    for column in ("user", "item", "timestamp"):
        assert log.ratings[column].astype(str).tolist() == [row[column] for row in expected]
    assert set(log.items.title) == {row["item"] for row in expected}


def test_case_of_the_benchmarks_lines(tmp_path):
    """Lines `user item` in order of time, a user's together, without a header."""
    draw = random.Random(0)
    expected = {user: draw.sample(range(1, 300), draw.randint(1, 12)) for user in range(1, 301)}
    lines = [f"{user} {item}\n" for user, items in expected.items() for item in items]
    log = load_interactions(write(tmp_path, "benchmark.txt", "".join(lines)))
    vocabulary, sequences, counts = build_sequences(log.ratings, min_item_ratings=1)
    assert counts.rows == len(lines)
    found = {user: vocabulary.item_ids(row).tolist() for user, row in zip(sequences.users, sequences, strict=True)}
    assert found == {user: items for user, items in expected.items() if len(items) > 2}


def test_sequence_lines_are_the_same_log_as_lines_of_pairs(tmp_path):
    pairs = load_interactions(write(tmp_path, "pairs.txt", "1 5\n1 7\n1 3\n2 5\n2 9\n1\t4\n"))
    walks = load_interactions(write(tmp_path, "walks.txt", GOOD["walks.txt"]))
    assert walks.ratings.equals(pairs.ratings) and walks.items.equals(pairs.items)
    with pytest.raises(ValueError, match=r"timestamp=3 \(--columns\), or timestamp=none for a user and items in order"):
        load_interactions(write(tmp_path, "even.txt", "1 2 3\n4 5 6\n"))
    same_length = write(tmp_path, "even.txt", "1 2 3\n4 5 6\n")
    assert load_interactions(same_length, columns="timestamp=none").ratings.item.tolist() == [2, 3, 5, 6]
    timed = load_interactions(same_length, columns="user=1 item=2 timestamp=3").ratings
    assert timed.item.tolist() == [2, 5] and timed.timestamp.tolist() == [3, 6]


@pytest.mark.parametrize("separator", ["\t", "::"])
@pytest.mark.parametrize("stars", ["5", "4.5"])
def test_times_before_stars_are_not_taken_for_grouplens_order(separator, stars, tmp_path):
    lines = [["1", "1027", "1600695485", stars], ["1", "9", "1600695480", "3"]]
    path = write(tmp_path, "log.tsv", "".join(separator.join(line) + "\n" for line in lines))
    message = refusal(load_interactions, path)
    assert "log.tsv, line 1: no header" in message
    told = re.search(r"tell (.*) \(--columns\)", message)[1]
    ratings = load_interactions(path, columns=told).ratings
    assert ratings.timestamp.tolist() == [1600695485, 1600695480] and ratings.rating.tolist() == [float(stars), 3]


def test_case_of_ids_that_pandas_has_made_floats():
    (path, expected), (titles, _) = case("ids-against-titles/log.csv"), case("ids-against-titles/titles.csv")
    log = load_interactions(path, titles)
    assert log.ratings.item.tolist() == [int(row["item"].removesuffix(".0")) for row in expected]
    assert log.items.title.tolist() == [f"Book {item}" for item in range(1, 41)]


def test_case_of_ids_with_leading_zeros(capsys):
    (path, expected), (titles, _) = case("ids-against-titles/log_zeros.csv"), case("ids-against-titles/titles.csv")
    log = load_interactions(path, titles)
    assert log.ratings.item.tolist() == [row["item"] for row in expected]
    assert log.items.item.tolist() == [f"{item:010}" for item in range(1, 41)]
    assert log.items.title.tolist() == [f"Book {item}" for item in range(1, 41)]
    said = capsys.readouterr().err
    assert said.startswith("40 items find their title by number, 0000000029 that of 29") and said.count("\n") == 1


@pytest.mark.parametrize(
    ("ids", "of_titles", "expected"),
    [
        (["0055", "56"], ["55", "56"], {"0055": "title of 55", "56": "title of 56"}),
        (["055", "55"], ["55"], {"055": "055", "55": "title of 55"}),  # 55 is 55, and 055 is another
        (["55.0", "x"], ["55", "x"], {"55.0": "title of 55", "x": "title of x"}),
        (["55.5", "7"], ["55", "7"], {"55.5": "55.5", "7": "title of 7", "55": "title of 55"}),
        (["055", "0055"], ["55"], "055, 55, 0055 are one number"),
        (["055"], ["55", "0055"], "055, 55, 0055 are one number"),
        (["55", "56.0", "55.0"], ["55", "56"], {55: "title of 55", 56: "title of 56"}),
        (["55", "1.50", "55.0"], ["55", "1.50"], {"55": "title of 55", "1.50": "title of 1.50"}),
        (["a", "b"], ["c"], "such as 'c'.*such as 'a'"),
    ],
)
def test_ids_in_two_forms_are_joined_or_named(ids, of_titles, expected, tmp_path):
    (tmp_path / "items.csv").write_text("item,title\n" + "".join(f"{item},title of {item}\n" for item in of_titles))
    log = write(tmp_path, "shop.csv", "user,item,timestamp\n" + "".join(f"u,{item},1\n" for item in ids))
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=rf"items\.csv: .*{expected}.*alike in both files"):
            load_interactions(log, tmp_path / "items.csv")
    else:
        items = load_interactions(log, tmp_path / "items.csv").items
        assert dict(zip(items.item, items.title, strict=True)) == expected


def test_a_title_of_no_item_of_the_log_changes_no_id(tmp_path, capsys):
    """Not even one that is a text: 9 would sort after 10, and a model trained without it would refuse the log."""
    rows = "".join(f"u{user},{item},{item}\n" for user in range(3) for item in range(1, 41))
    log = write(tmp_path, "shop.csv", "user,item,timestamp\n" + rows)
    content = "item,title\n" + "".join(f"{item},Title {item}\n" for item in range(1, 42))
    settings = DataSettings(ratings_file=str(log), items_file=str(tmp_path / "items.csv"), min_item_ratings=1)
    (tmp_path / "items.csv").write_text(content)
    before = load_dataset(settings)
    (tmp_path / "items.csv").write_text(content + "GIFT-1,Gift card\n007,Bond\n0099,Agent\n")
    capsys.readouterr()
    after = load_dataset(settings)
    pd.testing.assert_frame_equal(after.items, before.items)
    assert after.fingerprint == before.fingerprint and after.vocabulary.items.tolist() == [*range(1, 41)]
    said = "3 titles dropped, such as that of 'GIFT-1': their ids are not whole numbers, and all ids of the log are\n"
    assert capsys.readouterr().err == said


def test_blanks_around_an_id_are_none_of_it(tmp_path):
    (tmp_path / "items.csv").write_text("item, title\n34, A hat\n 35,Socks\n")
    log = write(tmp_path, "shop.csv", "user, item, timestamp\na, 34, 1\n a,35 , 2\n")
    read = load_interactions(log, tmp_path / "items.csv")
    assert read.ratings.user.tolist() == ["a", "a"] and read.ratings.item.tolist() == [34, 35]


@pytest.mark.parametrize(
    ("row", "found"),
    [
        *(("NULL,5,3", "user 'NULL'"), ("a,NaN,3", "item 'NaN'"), ("a, ,3", "item ' '"), ("null,5,3", "user 'null'")),
        *(("a,null,3", "item 'null'"), (r"\N,5,3", r"user '\\N'"), ("nan,5,3", "user 'nan'")),
        ("<NA>,5,3", "user '<NA>'"),
    ],
)
def test_what_databases_and_pandas_write_for_none_is_no_id(row, found, tmp_path):
    path = write(tmp_path, "shop.csv", f"user,item,timestamp\na,5,1\n\n{row}\nb,6,2\n")
    assert f"shop.csv, line 4: {found} must not be empty" in refusal(load_interactions, path)


@pytest.mark.parametrize("kind", ["float64", "Int64"])
def test_missing_ids_that_pandas_wrote_as_texts_are_named(kind, tmp_path):
    users = pd.Series([7, None, 8], dtype=kind).map(str)  # what astype(str) gave before pandas 3
    frame = pd.DataFrame({"user": users, "item": [1, 2, 3], "timestamp": [1, 2, 3]})
    frame.to_csv(tmp_path / "shop.csv", index=False)
    for read in (load_interactions, lambda _: from_frame(frame)):
        with pytest.raises(ValueError, match=r"(line 3|row 2): user '(nan|<NA>)' must not be empty"):
            read(tmp_path / "shop.csv")


def test_an_id_may_be_none_and_that_is_said(tmp_path, capsys):
    path = write(tmp_path, "shop.csv", "user,item,timestamp\nNone,b,1\nNone,c,2\na,b,1\n")
    assert load_interactions(path).ratings.user.tolist() == ["None", "None", "a"]
    assert capsys.readouterr().err == "2 rows have the user 'None', kept as an id: drop them if there was no user\n"


SHOP = """item,title,description
1,"A ""big"" hat","red,

or blue"
2,Socks,
3,"A scarf
for her",a
"""


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_quoted_value_may_have_line_breaks(line_end, tmp_path):
    log = write(tmp_path, "shop.csv", "user,item,timestamp\na,1,1\na,2,2\na,3,3\n")
    content = SHOP.replace("\n", line_end).encode()
    titles = write(tmp_path, "items.csv", content)
    assert load_interactions(log, titles).items.title.tolist() == ['A "big" hat', "Socks", "A scarf for her"]
    titles = write(tmp_path, "items.csv", content + b'2,"Shoes",\n')
    assert "items.csv, line 8: item '2' is listed before" in refusal(READERS["items.csv"], titles)
    titles = write(tmp_path, "items.csv", content + b'4,"Shoes,\n5,Boots,\n')  # never closed
    assert "items.csv, line 8: expected values in closed quotes" in refusal(READERS["items.csv"], titles)


@pytest.mark.parametrize("separator", ["\t", "|"])
def test_quotes_of_a_table_that_pandas_wrote_are_none_of_the_title(separator, tmp_path):
    titles = ['27" monitor', '"Heroes"', 'A "big" hat', "Socks", '"', f"Two{separator}in one", "Two\nlines"]
    frame = pd.DataFrame({"item": range(1, 8), "title": titles, "genres": "Red"})
    frame.to_csv(tmp_path / "items.tsv", sep=separator, index=False)
    log = write(tmp_path, "shop.csv", "user,item,timestamp\n" + "".join(f"a,{item},1\n" for item in frame["item"]))
    expected = [title.replace("\n", " ") for title in titles]
    assert load_interactions(log, tmp_path / "items.tsv").items.title.tolist() == expected


@pytest.mark.parametrize(
    "titles",
    [['"Heroes"', "Socks"], ['27" monitor', '"Heroes"'], ['"Heroes" (2006)', '"A ""big"" hat"'], ['"', "A"]],
)
def test_quotes_of_a_table_that_is_not_quoted_are_of_the_title(titles, tmp_path):
    rows = "".join(f"{item}\t{title}\r\n" for item, title in enumerate(titles, start=1))
    path = write(tmp_path, "items.tsv", "item\ttitle\r\n" + rows)
    log = "user,item,timestamp\n" + "".join(f"a,{item},1\n" for item in range(1, len(titles) + 1))
    (tmp_path / "log.csv").write_text(log)
    assert load_interactions(tmp_path / "log.csv", path).items.title.tolist() == titles


def test_a_row_of_a_catalogue_may_come_again(tmp_path):
    path = write(tmp_path, "items.csv", GOOD["items.csv"] + '2,"Socks, ""warm""",\n')
    assert READERS["items.csv"](path).items.title.tolist() == ["Hat", 'Socks, "warm"', "3"]


def test_how_many_items_lack_a_title_is_said(tmp_path, capsys):
    (tmp_path / "items.csv").write_text("item,title\n7,Seven\n")
    load_interactions(write(tmp_path, "shop.csv", "user,item,timestamp\na,7,1\na,8,2\na,9,2\n"), tmp_path / "items.csv")
    assert capsys.readouterr().err == "2 of 3 items have no title\n"


def test_what_was_cached_is_of_the_same_columns(tmp_path, monkeypatch):
    monkeypatch.setattr("bertrec_utils.data.dataset.MIN_CACHED_BYTES", 1)
    path = write(tmp_path, "log.tsv", "who\twith\twhat\n" + "".join(f"a\tb\t{n}\na\tc\t{n}\n" for n in range(4)))
    settings = [
        DataSettings(ratings_file=str(path), columns=f"user={user} item=what timestamp=none")
        for user in ("who", "with")
    ]
    for _ in range(2):
        found = [load_dataset(replace(each, min_item_ratings=1)).sequences.users.tolist() for each in settings]
        assert found == [["a"], ["b", "c"]]


def test_a_home_folder_may_be_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, "items.csv", GOOD["items.csv"])
    assert load_interactions("~/log.csv", "~/items.csv").items.title[0] == "Hat"
    own = DataSettings(ratings_file="~/log.csv", min_item_ratings=1)
    with pytest.raises(ValueError, match="no user has 3 different items"):
        load_dataset(own)
    (tmp_path / "data" / "ml-1m").mkdir(parents=True)
    write(tmp_path / "data" / "ml-1m", "ratings.dat", GOOD["ratings.dat"])
    write(tmp_path / "data" / "ml-1m", "movies.dat", GOOD["movies.dat"])
    monkeypatch.setenv("BERTREC_DATA", "~/data")
    assert len(load_dataset(DataSettings(release="ml-1m", min_item_ratings=1)).sequences) == 1


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "my.log.tsv.zip"])
def test_the_name_of_a_log(name):
    assert log_name(f"folder/{name}") == ("my.log" if "my" in name else "log")


def frames():
    """The same log as frames of several libraries."""
    times = pd.to_datetime(["2020-01-31", "2020-02-01 12:00", "2020-02-02", "2020-02-03"], format="ISO8601")
    frame = pd.DataFrame({"who": [7, 7, 7, 8], "what": ["b", "NA", "c", "b"], "when": times})
    yield "pandas", lambda: frame.set_axis([3, 1, 2, 3])
    yield "zone", lambda: frame.assign(when=times.tz_localize("UTC").tz_convert("Asia/Tokyo"))
    yield "index", lambda: frame.set_index("who")
    yield "index and column", lambda: frame.set_index("who", drop=False)
    yield "groups", lambda: pd.concat({who: part for who, part in frame.groupby("who")}, names=["who"])
    yield "levels", lambda: frame.set_index(["who", "what"]).assign(what=frame["what"].to_numpy())
    yield "categories", lambda: frame.astype({"who": "category", "what": "category"})
    yield "nullable", lambda: frame.convert_dtypes()
    yield "texts", lambda: frame.astype(str)
    yield "seconds", lambda: frame.assign(when=times.astype("datetime64[s]").astype("int64"))
    yield "polars", lambda: pytest.importorskip("polars").DataFrame(frame.to_dict("list"))
    yield "pyarrow", lambda: pytest.importorskip("pyarrow").table(frame.to_dict("list"))


@pytest.mark.parametrize("frame", [pytest.param(make, id=name) for name, make in frames()])
def test_a_frame_is_the_same_log_as_a_file(frame, tmp_path):
    rows = "7,b,2020-01-31\n7,NA,2020-02-01 12:00\n7,c,2020-02-02\n8,b,2020-02-03\n"
    (tmp_path / "items.csv").write_text("item,title\nb,Bee\n")
    path = write(tmp_path, "shop.csv", "user,item,timestamp\n" + rows)
    expected = load_interactions(path, tmp_path / "items.csv")
    log = from_frame(frame(), titles={"b": "Bee"}, user="who", item="what", timestamp="when")
    pd.testing.assert_frame_equal(log.ratings, expected.ratings)
    pd.testing.assert_frame_equal(log.items, expected.items)
    built = build_dataset(log, min_item_ratings=1)
    settings = DataSettings(ratings_file=str(path), items_file=str(tmp_path / "items.csv"), min_item_ratings=1)
    assert built.fingerprint == load_dataset(settings).fingerprint
    assert built.counts.kept_users == 1 and built.items.ratings.tolist() == [1, 2, 1]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"item": [1, None, 2]}, "frame, row 2: item 'nan' must not be empty"),
        ({"user": ["a", "a", None]}, "frame, row 3: user '.*' must not be empty"),
        ({"user": ["a", "a\nb", "c"]}, r"frame, row 2: user 'a\\nb' must be on one line"),
        (
            {"timestamp": pd.to_datetime(["2020-01-31", None, "2020-01-31"])},
            "frame, row 2: timestamp 'NaT' must not be",
        ),
        ({"timestamp": [1.0, 2.0, np.inf]}, "frame, row 3: timestamp 'inf' is not a finite"),
        ({"visitor_id": [1, 1, 1], "user": None}, "no error"),
        ({"visitor_id": [1, 1, 1], "user": None, "session": "a"}, r"frame: .* the user \(visitor_id or session\?\)"),
    ],
)
def test_a_row_of_a_frame_is_named(changes, problem):
    columns = {"user": ["a"] * 3, "item": [1, 2, 3], "timestamp": [1, 2, 3]} | changes
    frame = pd.DataFrame({name: values for name, values in columns.items() if values is not None})
    if problem == "no error":
        assert len(from_frame(frame).ratings) == 3
    else:
        with pytest.raises(ValueError, match=problem):
            from_frame(frame)


@pytest.mark.parametrize("frame", [{"user": [1]}, None, pd.Series([1])])
def test_what_is_no_frame_is_told(frame):
    with pytest.raises(TypeError, match=f"frame is a {type(frame).__name__}; give a data frame of pandas, polars or"):
        from_frame(frame)


def test_titles_of_a_frame_may_be_a_frame():
    frame = pd.DataFrame({"user": ["a"], "isbn": [55.0], "timestamp": [1]})
    titles = pd.DataFrame({"isbn": ["0055"], "name": ["A\nbook"], "category": [None]})
    assert from_frame(frame, titles, noun="book").items.values.tolist() == [[55, "A book", ""]]
    with pytest.raises(TypeError, match="users: a column is one of user, item"):
        from_frame(frame, users="user")


def test_parquet_is_read_as_a_frame(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"user_id": [7, 7], "note": ["x", "y"], "asin": ["b", "NA"]}).set_index("user_id")
    frame.assign(date=pd.to_datetime(["2020-01-31", "2020-02-01"])).to_parquet(tmp_path / "log.parquet")
    log = load_interactions(tmp_path / "log.parquet")
    assert log.ratings.values.tolist() == [[7, "b", 1.0, 1_580_428_800], [7, "NA", 1.0, 1_580_515_200]]
    with pytest.raises(ValueError, match=r"log\.parquet: the columns 'user_id, note, asin, date' do not tell the item"):
        load_interactions(tmp_path / "log.parquet", columns="item=what")
    path = write(tmp_path, "cut.parquet", (tmp_path / "log.parquet").read_bytes()[:-20])
    assert "cut.parquet is damaged" in refusal(load_interactions, path)


def test_parquet_without_its_extra_is_explained(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = refusal(load_interactions, write(tmp_path, "log.parquet", b"PAR1...PAR1"))
    assert message.endswith("needs pyarrow: pip install 'bertrec-utils[parquet]'")


def test_own_items_may_lack_genres_titles_and_rows(tmp_path):
    (tmp_path / "items.csv").write_text("item,title\n1,Hat\n2,\n")
    log = load_interactions(
        write(tmp_path, "shop.csv", "user,item,timestamp\na,1,1\na,2,2\na,3,3\n"), tmp_path / "items.csv"
    )
    assert log.items.values.tolist() == [[1, "Hat", ""], [2, "2", ""], [3, "3", ""]]


def test_missing_own_log(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*shop\.csv; check its name .* log with --ratings"):
        load_interactions(tmp_path / "shop.csv")
    log = write(tmp_path, "shop.csv", GOOD["shop.csv"])
    with pytest.raises(FileNotFoundError, match=r"no file .*titles\.csv; check .* titles with --ratings FILE --items"):
        load_interactions(log, tmp_path / "titles.csv")


def test_a_folder_is_no_log(tmp_path):
    """As Spark writes one."""
    (tmp_path / "log.parquet").mkdir()
    assert "log.parquet is a folder; name one file in it" in refusal(load_interactions, tmp_path / "log.parquet")


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("blank", ["\n", "\r\n \t\r\n", "\ufeff\n\n"])
def test_blank_lines_before_the_first_are_skipped(name, blank, tmp_path):
    if encoding(name) == "latin-1" and "\ufeff" in blank:
        return
    expected = READERS[name](write(tmp_path, name, GOOD[name]))
    read = READERS[name](write(tmp_path, name, blank + GOOD[name]))
    for table, its_expected in zip(tables(read), tables(expected), strict=True):
        assert table.equals(its_expected)


@pytest.mark.parametrize(
    ("content", "told", "found"),
    [
        ("who,what\na,b\n", None, "line 3: the columns 'who, what' do not tell"),
        ("user,item,timestamp\na,b,1\na,,2\n", None, "line 5: item '' must not"),
        ("user,item,timestamp\na,b,x\n", None, "line 4: timestamp 'x'"),
        ("user,item,timestamp\na,b,1\na,b,1,2\n", None, "line 5: expected 3 values"),
        ("1 2 3 4\n5 6 7 8\n", None, "line 3: 4 numbers"),
        ("a^b\n", None, "line 3: one column"),
        ("uid2,thing\n1,2\n", "user=1 item=2 timestamp=none", "line 3: 'uid2, thing' are names"),
    ],
)
def test_lines_are_counted_from_the_start_of_the_file(content, told, found, tmp_path):
    with pytest.raises(ValueError, match=r"shop\.csv, " + found):
        load_interactions(write(tmp_path, "shop.csv", "\n\n" + content), columns=told)


@pytest.mark.parametrize("rows", ["1,2\n1,3\n", "1,2.0\n-1,3.0\n", "1,2,2020-01-31\n1,3,2020-01-31\n"])
def test_a_header_that_was_told_by_number_is_no_row(rows, tmp_path):
    is_timed = rows.count(",") > 2
    header, told = ("buyer2,thing,when\n", "timestamp=3") if is_timed else ("buyer2,thing\n", "timestamp=none")
    path = write(tmp_path, "shop.csv", header + rows)
    message = refusal(lambda path: load_interactions(path, columns=f"user=1 item=2 {told}"), path)
    assert f"line 1: '{header.strip().replace(',', ', ')}' are names, it seems, above numbers; tell" in message
    told = told.replace("3", "when")
    assert load_interactions(path, columns=f"user=buyer2 item=thing {told}").ratings.item.tolist() == [2, 3]


@pytest.mark.parametrize("rows", ["ann,hat\nbob,7\n8,9\n", "7,hat\n8,9\n8,9\n", "ann,hat\n"])
def test_a_first_row_without_numbers_may_be_one(rows, tmp_path):
    read = load_interactions(write(tmp_path, "shop.csv", rows), columns="user=1 item=2 timestamp=none").ratings
    assert [f"{user},{item}" for user, item in zip(read.user, read.item, strict=True)] == rows.split()


def test_columns_of_one_name_are_told_by_number(tmp_path):
    path = write(tmp_path, "shop.csv", "user,item,when,user,rating\na,b,1,c,5\n")
    message = refusal(lambda path: load_interactions(path, columns="timestamp=when"), path)
    assert "tell all by number, user=1 item=2 timestamp=3 rating=5 (--columns), or user=4" in message
    for number, user in (("1", "a"), ("4", "c")):
        told = f"item=2 timestamp=3 rating=5 user={number}"
        assert load_interactions(path, columns=told).ratings.values.tolist() == [[user, "b", 5.0, 1]]
    message = refusal(lambda path: load_interactions(path, columns="timestamp=none"), path)
    assert "user=1 item=2 rating=5 timestamp=none (--columns), or user=4" in message
    twice = pd.DataFrame([["a", "b", 1, "c"]], columns=["user", "item", "timestamp", "user"])
    with pytest.raises(ValueError, match=r"do not tell the user \(user or user\?\); rename one of the two"):
        from_frame(twice)


def damaged(content, draw):
    """One to three random damages: to bytes, lines, quotes, encodings and numbers."""
    for _ in range(draw.choice([1, 1, 2, 3])):
        start, end = sorted(draw.randrange(len(content) + 1) for _ in range(2))
        lines = content.splitlines(keepends=True)
        kind = draw.randrange(12)
        if kind == 0:  # another byte
            content = content[:start] + bytes([draw.randrange(256)]) + content[start + 1 :]
        elif kind == 1:  # cut off
            content = content[:start]
        elif kind == 2:  # a piece lost
            content = content[:start] + content[min(end, start + 30) :]
        elif kind == 3:  # a piece doubled
            content = content[:end] + content[start:]
        elif kind == 4:  # an odd character
            odd = draw.choice(
                ['"', '""', "\0", "\r", "\r\n", "\n", "\n\n", ",", ":", "|", "\t", ";", "-", "\ufeff", " "]
            )
            content = content[:start] + odd.encode() + content[start:]
        elif kind == 5:
            content = b"\xef\xbb\xbf" + content
        elif kind == 6:
            content = content.replace(b"\n", draw.choice([b"\r\n", b"\r", b"\0\n", b"\n\n"]))
        elif kind == 7:  # lines in another order, or twice
            draw.shuffle(lines)
            content = b"".join(lines + draw.sample(lines, draw.randrange(2) if lines else 0))
        elif kind == 8:  # a value replaced by one that may not fit
            separator = draw.choice([b",", b"::", b"\t", b"|"])
            if lines:
                row = draw.randrange(len(lines))
                values = lines[row].rstrip(b"\n").split(separator)
                values[draw.randrange(len(values))] = draw.choice(ODD_VALUES).encode("utf-8", "surrogateescape")
                lines[row] = separator.join(values) + b"\n"
                content = b"".join(lines)
        elif kind == 9:  # another separator
            content = content.replace(draw.choice([b",", b"::", b"\t", b"|"]), draw.choice([b";", b",", b":", b"\t"]))
        elif kind == 10:
            content = content.decode("latin-1").encode(draw.choice(["utf-16", "utf-8"]))
        else:  # random bytes
            content = content[:start] + draw.randbytes(draw.randrange(1, 8)) + content[start:]
    return content


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_well_or_refused_in_one_line(name, tmp_path):
    draw = random.Random(name)
    good = GOOD[name].encode(encoding(name))
    path = write(tmp_path, name, good)
    refused = 0
    with path.open("wb", buffering=0) as file:  # kept open: opening is slow
        for _ in range(FUZZED_FILES):
            content = damaged(good, draw)
            file.seek(0)
            file.truncate()
            file.write(content)
            try:
                read = READERS[name](path)
            except Exception as error:
                message = str(error)
                assert type(error) is ValueError and str(path) in message and len(message.splitlines()) == 1, content
                refused += 1
            else:
                assert b"\0" not in content, content
                assert_well_formed(read)
    print(f"{name}: {refused:,} of {FUZZED_FILES:,} refused")
    assert 0 < refused < FUZZED_FILES


def test_a_log_from_new_to_old_is_read_from_its_end(capsys):
    """By day, as shops export it: the rows of one day are in order, too."""
    table = [
        (user, f"i{user * day % 7}{hour}", f"2024-01-{day:02}")
        for day in range(1, 8)
        for user in range(4)
        for hour in range(2)
    ]
    frame = pd.DataFrame(table, columns=["user", "item", "timestamp"])
    straight = from_frame(frame).ratings
    assert "new to old" not in capsys.readouterr().err
    for turned in (frame[::-1], frame[::-1].sort_values("user", kind="stable")):
        found = from_frame(turned).ratings
        assert "the rows go from new to old: they are read from the last to the first" in capsys.readouterr().err
        by_user = (each.sort_values("user", kind="stable", ignore_index=True) for each in (found, straight))
        pd.testing.assert_frame_equal(*by_user)
    few = frame[frame.user == 0][:4]
    assert from_frame(few[::-1]).ratings.item.tolist() == few.item[::-1].tolist()  # too few rows to tell


@pytest.mark.parametrize(
    ("times", "row", "units"),
    [
        ((1700000000, 1690000000000, 1695000000), 2, ("milliseconds", "seconds")),
        ((1690000000000, 1690000000001, 1695000000.5), 3, ("seconds", "milliseconds")),
    ],
)
def test_times_in_two_units_are_refused(times, row, units):
    frame = pd.DataFrame({"user": 1, "item": ["a", "b", "c"], "timestamp": times})
    message = r"frame, row {}: timestamp .* is in {}, it seems, and the first row's is in {}; correct or drop the row"
    with pytest.raises(ValueError, match=message.format(row, *units)):
        from_frame(frame)


def test_columns_of_a_frame_may_be_numbers():
    frame = pd.DataFrame([["ann", "tea", 1], ["ann", "cake", 2]])
    assert from_frame(frame, user=0, item=1, timestamp=2).ratings.item.tolist() == ["tea", "cake"]
