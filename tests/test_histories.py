import pytest

from bertrec_utils.common import PROJECT
from bertrec_utils.scenarios.titles import read_history

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
