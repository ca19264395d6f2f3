"""CSV files as spreadsheets write them, and texts of any length."""

import csv
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from normbench.cli import app
from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.data.base import REGISTRY, Tokens
from normbench.data.reading import csv_files, texts
from normbench.data.reading.csv_files import Form
from normbench.data.reading.texts import encoded, trained_tokenizer
from normbench.errors import RequestError

ROWS = [(f"so, text; {i}|\t!", "ab"[i % 2]) for i in range(30)]


def written(path: Path, delimiter: str, rows: Any, encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as opened:
        csv.writer(opened, delimiter=delimiter).writerows(rows)
    return path


def columns(path: Path, **options: Any) -> tuple[list[str], list[str]]:
    rows = csv_files.read(path, Form(**options))
    return rows.texts, rows.labels


EXPECTED = [text.strip() for text, _ in ROWS], [label for _, label in ROWS]


def test_every_delimiter_is_detected(tmp_path: Path) -> None:
    for name, sign in csv_files.DELIMITERS.items():
        for suffix in ("csv", "tsv", "txt"):
            case = f"{name} {suffix}"
            path = tmp_path / f"{name}.{suffix}"
            written(path, sign, [("text", "label"), *ROWS])
            assert columns(path) == EXPECTED, case
            assert columns(path, delimiter=name) == EXPECTED, case
            [summary] = csv_files.read(path, Form()).notes.understood
            assert f"2 columns, separated by {name}s; texts are in" in summary, case
            written(path, sign, ROWS)
            assert columns(path, header=False) == EXPECTED, case


FORMS: dict[str, tuple[list[list[str]], dict[str, Any]]] = {
    "another order": ([["label", "text"], ["a", "x"], ["b", "y"]], {}),
    "capitals and spaces": ([[" Text ", "LABEL"], ["x", "a"], ["y", "b"]], {}),
    "an index without a name": (
        [["", "text", "label"], ["0", "x", "a"], ["1", "y", "b"]],
        {},
    ),
    "further columns": (
        [["id", "label", "date", "text"], ["7", "a", "", "x"], ["8", "b", "1", "y"]],
        {},
    ),
    "other names": (
        [["id", "Review", "Stars"], ["1", "x", "a"], ["2", "y", "b"]],
        {"text_column": "review", "label_column": "Stars"},
    ),
    "numbers": (
        [["id", "Review", "Stars"], ["1", "x", "a"], ["2", "y", "b"]],
        {"text_column": 2, "label_column": 3},
    ),
    "a name and a number": (
        [["Stars", "Review"], ["a", "x"], ["b", "y"]],
        {"text_column": "Review", "label_column": 1},
    ),
    "a name that is a number": (
        [["1", "0"], ["a", "x"], ["b", "y"]],
        {"text_column": "0", "label_column": "1"},
    ),
    "no header": ([["x", "a"], ["y", "b"]], {"header": False}),
    "no header, and columns": (
        [["1", "a", "x"], ["2", "b", "y"]],
        {"header": False, "text_column": 3, "label_column": 2},
    ),
    "empty rows": (
        [["text", "label", ""], ["x", "a", ""], ["", "", ""], ["y", "b", "z"]],
        {},
    ),
}


def test_the_run_id_depends_on_a_suffix_that_decides_the_delimiter(
    tmp_path: Path,
) -> None:
    rows = [(f"Hello, world {i}", "ab"[i % 2]) for i in range(60)]
    ids, labels = set(), []
    for suffix in ("csv", "tsv"):
        path = written(tmp_path / f"same.{suffix}", "\t", rows)
        options = ["task=transformer", "data=text_csv", f"data.path={path}"]
        ids.add(run_id(compose([*options, "data.header=false"])))
        labels.append(set(columns(path, header=False)[1]))
    assert labels[1] == {"a", "b"} != labels[0]
    assert len(ids) == 2


def test_columns_may_have_any_order_and_name(tmp_path: Path) -> None:
    for case, (rows, options) in FORMS.items():
        for delimiter in ",;\t":
            path = written(tmp_path / "t.csv", delimiter, rows)
            assert columns(path, **options) == (["x", "y"], ["a", "b"]), case
    [summary] = csv_files.read(path, Form()).notes.understood
    assert "1 empty rows are left out" in summary


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (
            "id;Review;Stars\n1;x;a\n",
            {},
            "3 columns, separated by semicolons: 'id', 'Review', 'Stars'; it has no "
            "column 'text'; set data.text_column and data.label_column to column names "
            "or numbers, and data.header=false if there is no header",
        ),
        ("text;class\nx;a\n", {}, "separated by semicolons: 'text', 'class'; it has"),
        ("text,label\nx,a\n", {"text_column": 3}, "it has no column 3"),
        ("text,label,label\nx,a,b\n", {}, "it has 2 columns 'label'"),
        ("text,label\nx,a\n", {"label_column": "text"}, "are the same column of"),
        ("text;label\nx;a;b\n", {}, "line 2 has 3 columns, not 2; quote texts that"),
        (
            "text,label\nx,a\n",
            {"delimiter": "tab"},
            "1 columns, separated by tabs: 'te",
        ),
        ("x,a\ny\n", {"header": False}, "line 2 has 1 columns, not 2"),
        ('text,label\n"x,a\n', {"delimiter": "comma"}, "is a quote never closed?"),
        ("text,label\n,\n\n , \n", {}, "has a header but no samples"),
    ],
)
def test_a_wrong_form_is_refused_with_the_existing_columns(
    content: str, options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content)
    with pytest.raises(RequestError) as refused:
        columns(path, **options)
    assert words in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_options_are_checked(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", ";", [("text", "label"), *ROWS])
    given = ["task=transformer", "data=text_csv", f"data.path={path}"]
    usual = compose(given)
    for text in ("data.delimiter=semicolon", 'data.delimiter=";"'):
        assert compose([*given, text]).data.options["delimiter"] == "semicolon"
    assert compose([*given, "data.text_column=2"]).data.options["text_column"] == 2
    wrong = {
        "data.delimiter=x": "data.delimiter=",
        "data.text_column=0": "data.text_column",
        "data.header=3": "data.header=3",
    }
    for text, words in wrong.items():
        with pytest.raises(RequestError, match=words):
            compose([*given, text])
    named = [*given, "data.header=false", "data.label_column=stars"]
    with pytest.raises(
        RequestError, match=r"stars is a column name, but with data\.header=f"
    ):
        compose(named)
    # The run id depends on the columns.
    assert run_id(compose([*given, "data.text_column=2"])) != run_id(usual)


def test_the_fingerprint_and_run_id_of_a_file_never_change(tmp_path: Path) -> None:
    lines = [f"text {i},{'ab'[i % 2]}\n" for i in range(40)]
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(lines))
    given = ["task=transformer", "data=text_csv", f"data.path={tmp_path}/t.csv"]
    config = compose(given)
    assert config.data.options["fingerprint"] == "0cda737e267fef7f8ce267128c963522"
    assert run_id(config) == "786ef4b736f755c4"


def test_a_byte_order_mark_is_not_part_of_the_first_column_name(tmp_path: Path) -> None:
    spellings = {
        "utf-8-sig": ["utf-8", "UTF-8", "utf8", "UTF8", "utf_8", "U8", "utf-8-sig"],
        "utf-16": ["utf-16", "UTF16", "utf_16_le"],
        "utf-32": ["utf-32", "utf_32"],
    }
    for encoding, known in spellings.items():
        for spelling in known:
            for quoted in ("text", '"text"'):
                path = tmp_path / "t.csv"
                content = f"{quoted};label\r\n\u00e9t\u00e9;a\r\ny;b\r\n"
                path.write_bytes(content.encode(encoding))
                got = columns(path, encoding=spelling)
                assert got == (["\u00e9t\u00e9", "y"], ["a", "b"]), (encoding, spelling)
        with pytest.raises(RequestError) as refused:
            columns(path, encoding="cp1252")
        right = encoding.removesuffix("-sig")
        assert f"mark of {right}, but data.encoding=cp1252" in str(refused.value)
        assert str(refused.value).endswith(f"set data.encoding={right}")
    written(path, ",", [("text", "label"), *ROWS])
    for unknown in ("utf-9", "base64", "a\0b", "\u00e9"):
        with pytest.raises(RequestError, match="is unknown; try utf-8"):
            columns(path, encoding=unknown)


def test_the_first_line_of_excel_names_the_delimiter(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for name, sign in csv_files.DELIMITERS.items():
        for head in (f"sep={sign}\r\n", f"SEP={sign}\n", f"\ufeffsep={sign}\r\n"):
            for encoding in ("utf-8", "utf-16"):
                case = f"{name} {head!r} {encoding}"
                rows = f"text{sign}label\r\nx{sign}a\r\n"
                path.write_bytes((head + rows).encode(encoding))
                expected = rows.splitlines()[1].split(sign)
                got = columns(path, encoding=encoding)
                assert got == (expected[:1], expected[1:]), case
                got = columns(path, encoding=encoding, delimiter=name)
                assert got == (expected[:1], expected[1:]), case
                path.write_bytes((head + rows + f"z{sign}\r\n").encode(encoding))
                with pytest.raises(RequestError, match="line 4 has an empty label"):
                    columns(path, encoding=encoding)
                path.write_bytes((head + f"x{sign}a\r\n").encode(encoding))
                got = columns(path, encoding=encoding, header=False)
                assert got == (["x"], ["a"]), case


def test_a_wrong_column_is_refused_in_one_line(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", ",", [("text", "label"), *ROWS])
    given = ["task=transformer", "data=text_csv", f"data.path={path}"]
    for key in ("data.text_column", "data.label_column"):
        for value in ("0", "-1", "true", "1.5", "[1]"):
            with pytest.raises(RequestError) as refused:
                compose([*given, f"{key}={value}"])
            (line,) = str(refused.value).splitlines()
            assert line.startswith(f"{key}={value.capitalize()}: "), line
            assert line.endswith("give the name of a column, or its number, from 1")


def test_doctor_describes_the_file(tmp_path: Path) -> None:
    rows = [("n", "stars", "review"), *((i, "ab"[i % 2], f"t {i}") for i in range(30))]
    path = written(tmp_path / "t.csv", ";", [*rows, ("30", "c", "t 1")])
    given = ["task=transformer", "data=text_csv", f"data.path={path}"]
    given += ["data.text_column=review", "data.label_column=stars", "tracker=none"]
    doctor = CliRunner().invoke(app, ["doctor", *given, "--json"])
    findings = [f for f in json.loads(doctor.stdout) if f["what"] == "data"][1:]
    assert [f["why"] for f in findings if f["level"] == "ok"][:2] == [
        "t.csv: 3 columns, separated by semicolons; texts are in column 'review' and "
        "labels in column 'stars'",
        "t.csv: 31 samples of 3 classes: a 15, b 15, c 1",
    ]
    [warning] = [f["why"] for f in findings if f["level"] == "warning"]
    assert warning == "t.csv: classes with 1 or 2 samples: c 1"


# Long texts


def loaded(path: Path) -> Tokens:
    tokens: Tokens = REGISTRY.get("text_csv")(path=str(path), vocab_size=200).load(0)
    return tokens


def test_only_the_beginning_of_a_long_text_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.csv"
    rows = [("text", "label"), *ROWS, ("so text " * 20, "a"), ("so " * 90, "b")]
    written(path, ",", rows)
    assert not loaded(path).notes.warnings
    monkeypatch.setattr(texts, "MAX_TEXT_LENGTH", 100)
    monkeypatch.setattr(texts, "FORMAT", "a test")
    data = loaded(path)
    assert data.facts["cut_texts"] == 2
    assert data.notes.warnings == (
        "t.csv: of texts with more than 100 characters only the beginning is used: "
        "row 32 (159 characters), row 33 (269 characters)",
    )
    written(path, ",", [(text[:100], label) for text, label in rows])
    assert (loaded(path).tokens == data.tokens).all()


@pytest.mark.slow
def test_a_text_of_twenty_megabytes_is_read_in_seconds(tmp_path: Path) -> None:
    for word in ("word ward ", "x"):
        path = tmp_path / f"{word.strip()}.csv"
        long = word * (20_000_000 // len(word))
        written(path, ",", [("text", "label"), *ROWS, (long, "a")])
        start = time.process_time()
        data = loaded(path)
        # Without limits it took two minutes, and half an hour without white space.
        assert time.process_time() - start < 30, word
        assert "row 32 (" in data.notes.warnings[0]


def test_a_field_beyond_the_limit_is_an_unclosed_quote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = csv.field_size_limit()
    monkeypatch.setattr(csv_files, "MAX_FIELD_LENGTH", 50)
    path = tmp_path / "t.csv"
    path.write_text('text,label\nx,a\n"never closed,' + "b\n" * 100)
    with pytest.raises(RequestError, match=r"larger than field limit.*never closed"):
        loaded(path)
    assert csv.field_size_limit() == limit


def test_tokens_are_those_of_the_whole_text() -> None:
    random.seed(0)
    signs = "ab\u00e9\u82b1\u0301.,!_\x1c\x85\xa0\u200b\u2003\u3000 \t\n"
    made = ["".join(random.choices(signs, k=k)) for k in range(1, 300)]
    tokenizer = trained_tokenizer(made[::2], 60)
    whole = [encoding.ids for encoding in tokenizer.encode_batch(made)]
    for most in (1, 2, 7, 50, 10**6):
        for text, ids in zip(made, whole, strict=True):
            expected = ids[:most] or [texts.UNKNOWN_ID]
            assert encoded(tokenizer, text, most) == expected, repr(text)


def test_the_vocabulary_is_the_same_word_by_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random.seed(1)
    words = ["".join(random.choices("abc\u00e9.", k=5)) for _ in range(200)]
    made = [" ".join(random.choices(words, k=30)) for _ in range(20)]
    vocabulary = trained_tokenizer(made, 100).get_vocab()
    monkeypatch.setattr(texts, "MAX_WORD_LENGTH", 10)
    assert trained_tokenizer(made, 100).get_vocab() == vocabulary
