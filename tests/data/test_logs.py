import os
import random
import re
from datetime import UTC, datetime

import numpy as np
import pytest

from bertrec_utils.data.logs import RATING_TYPES, Interactions, load_interactions, read_movies, read_ratings
from bertrec_utils.data.sequences import Vocabulary
from bertrec_utils.evaluation.baselines import RecentPopularity
from conftest import rows

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
        assert len(table) and not table.isna().any(axis=None)
        if "title" in table:
            assert list(table) == ["item", "title", "genres"]
            assert table.item.is_unique and (table.title != "").all()
        elif own:
            assert list(table) == list(RATING_TYPES)
            assert table.rating.dtype == "float64" and np.isfinite(table.rating).all()
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
        ("shop.csv", "hat,8,3,102,9", "expected 4 values as in the header, found 'hat,8,3,102,9'"),
        ("shop.csv", "hat,8,good,102", "rating 'good' is not a finite number"),
        ("shop.csv", "hat,8,,102", "rating '' is not a finite number"),
        ("shop.csv", "hat,8,1e400,102", "rating '1e400' is not a finite number"),
        ("shop.csv", "hat,8,3,inf", "timestamp 'inf' is not a finite 64-bit number"),
        ("shop.csv", "hat,8,3,nan", "timestamp 'nan' is not a finite 64-bit number"),
        ("shop.csv", "hat,8,3," + "9" * 30, "timestamp '9{30}' is not a finite 64-bit number"),
        ("shop.csv", "hat,8,3,2020-01-31", "timestamp '2020-01-31' is not a finite 64-bit number, as the first"),
        ("shop.csv", 'hat,"8,3,102', "expected values in closed quotes or none"),
        ("shop.csv", f"h{NUL}at,8,3,102", "expected text saved as utf-8"),
        ("shop.csv", f"caf{LATIN},8,3,102", "expected text saved as utf-8"),
        ("visits.csv", "cy,2,10/1/2020,", "timestamp '10/1/2020' is neither a number nor an ISO date"),
        ("visits.csv", "cy,2,9999-12-31,", "timestamp '9999-12-31' is neither .* of the years 1678 to 2261"),
        ("visits.csv", "cy,2,100,", "timestamp '100' is neither a number nor"),
        ("visits.csv", "cy,2,now,", "timestamp 'now' is neither a number nor"),
        ("items.csv", "2,Shirt,", "item '2' is listed before"),
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
        ("shop.csv", "", "line 1: expected the columns user, item, timestamp"),
        ("shop.csv", "user,item,timestamp\n", "holds no rows"),
        ("shop.csv", "user,item\na,b\n", "line 1: expected the columns user, item, timestamp .* found 'user,item'"),
        ("shop.csv", "user;item;timestamp\na;b;1\n", "line 1: .* with commas between.* found 'user;item;timestamp'"),
        ("shop.csv", "user,item,timestamp,user\na,b,1,c\n", "line 1: .*each once"),
        ("shop.csv", "user,item,timestamp\na,b,1,9\na,c,2,9\n", "line 2: expected 3 values"),
        ("shop.csv", 'user,item,timestamp\na,"b,1\na",c,2\n', "line 2: expected values in closed quotes"),
        ("shop.csv", "user,item,timestamp\na,b,1\n".encode("utf-16"), "line 1: expected text saved as utf-8"),
        ("items.csv", "item,name\n1,Hat\n", "line 1: expected the columns item, title"),
    ],
)
def test_a_file_of_another_kind_is_refused(name, content, found, tmp_path):
    assert re.search(f"{name}(, | )" + found, refusal(READERS[name], write(tmp_path, name, content)))


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


def test_own_items_may_lack_genres_titles_and_rows(tmp_path):
    (tmp_path / "items.csv").write_text("item,title\n1,Hat\n2,\n")
    log = load_interactions(
        write(tmp_path, "shop.csv", "user,item,timestamp\na,1,1\na,2,2\na,3,3\n"), tmp_path / "items.csv"
    )
    assert log.items.values.tolist() == [[1, "Hat", ""], [2, "2", ""], [3, "3", ""]]


def test_missing_own_log(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*shop\.csv; check its name"):
        load_interactions(tmp_path / "shop.csv")


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
