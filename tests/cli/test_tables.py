"""Tables fit the terminal without breaking a word."""

import re

import pytest

from normbench.cli.tables import PIPE_WIDTH, print_table

ROWS = [
    {"name": "group_permuted", "source": "Wu & He 2018", "uses other samples": "-"},
    {"name": "ibn", "source": "Pan et al. 2018", "uses other samples": "yes"},
]


@pytest.fixture
def printed(monkeypatch, capsys):
    """Print a table in a terminal of a given width, and return its lines."""

    def printed(columns: int, rows=ROWS, title="norms") -> list[str]:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", str(columns))
        print_table(rows, title)
        return re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).splitlines()

    return printed


@pytest.mark.parametrize("columns", [32, 34, 40, 80])
def test_a_table_fits_its_terminal_and_keeps_words_whole(printed, columns):
    lines = printed(columns)
    assert all(len(line) <= columns for line in lines)
    words = " ".join(lines).split()
    expected = " ".join(value for row in ROWS for value in row.values()).split()
    assert all(word in words for word in expected)
    assert any(line.split()[:2] == ["group_permuted", "Wu"] for line in lines)


def test_a_row_whose_words_do_not_fit_is_a_block(printed):
    assert printed(24) == [
        "norms",
        "",
        "name group_permuted",
        "  source              Wu & He 2018",
        "  uses other samples  -",
        "",
        "name ibn",
        "  source              Pan et al. 2018",
        "  uses other samples  yes",
    ]


def test_brackets_are_text(printed):
    rows = [{"[/a]": "[red] of many words", "b": "[/b]"}]
    lines = [line.split() for line in printed(80, rows, "runs [old] [/x]")]
    assert lines[0] == ["runs", "[old]", "[/x]"]
    assert lines[1] == ["[/a]", "b"]
    assert lines[3] == ["[red]", "of", "many", "words", "[/b]"]


def test_an_empty_table_is_its_title(printed):
    assert printed(80, rows=[], title="0 runs") == ["0 runs"]


def test_a_pipe_gets_wide_lines(capsys):
    print_table([{"a": "word " * 30, "b": "1"}], "")
    lines = capsys.readouterr().out.splitlines()
    assert 150 < max(map(len, lines)) <= PIPE_WIDTH
