"""A stranger's text cannot control a terminal or a spreadsheet, or stop a command."""

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from conftest import Command
from hypothesis import given
from hypothesis import strategies as st
from records_made import A_RECORD, written

from normbench.config.identity import run_id
from normbench.config.schema import Choice, RunRecord
from normbench.system.streams import clean

RUN_COMMANDS = """
import json, sys
from normbench.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["normbench", *words]
    try:
        main()
    except SystemExit as end:
        print("<end>", end.code)
"""
"""Runs several commands in one process, because the imports are slow."""
NASTY = "\x1b]0;owned\x07\x9b31m\x1b[2J\r\x7f\u202e"
"""Control sequences: a window title, a colour, an empty screen, right-to-left text."""
ASIAN = "/data/花 データ"


def named(norm: str, seed: int = 0, path: str = ASIAN, **changes: Any) -> RunRecord:
    """Return a record whose norm is called `norm` and whose data are at `path`."""
    data = Choice(name="own", path=path)
    own = {"seed": seed, "norm": Choice(name=norm), "data": data}
    config = A_RECORD.config.model_copy(update=own)
    return A_RECORD.model_copy(
        update={"config": config, "run_id": run_id(config), **changes}
    )


def terminal_output(*words: str, **environment: str) -> str:
    """Return the text that a command writes to a terminal."""
    screen, terminal = pty.openpty()
    with subprocess.Popen(
        words,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"} | environment,
        stdout=terminal,
        stderr=terminal,
    ):
        os.close(terminal)
        output = b""
        while chunk := read(screen):
            output += chunk
    os.close(screen)
    return output.decode()


def read(descriptor: int) -> bytes:
    """Read from a terminal; return b"" at its end."""
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the end of a terminal
        return b""


def test_characters_that_a_stream_cannot_encode_are_escaped(tmp_path: Path) -> None:
    results = tmp_path / "花"
    for seed in range(3):
        written(results, named(f"é{seed}", seed))
    ids = sorted(path.parent.name for path in results.rglob("result.json"))
    for encoding in ("ascii", "cp1252", "utf-8", "utf-16"):
        formats = (["--csv"], ["--json"], [])
        commands = [["results", *f, "--results", str(results)] for f in formats]
        done = subprocess.run(
            [sys.executable, "-c", RUN_COMMANDS, json.dumps(commands)],
            env=os.environ | {"PYTHONIOENCODING": encoding},
            capture_output=True,
        )
        texts = done.stdout.decode(encoding).split("<end> 0\n")
        assert len(texts) == 4 and texts[-1] == "", (encoding, done)
        rows = list(csv.DictReader(io.StringIO(texts[0])))
        assert sorted(row["run_id"] for row in rows) == ids, encoding
        records = json.loads(texts[1])
        paths = {record["config"]["data"]["path"] for record in records}
        assert paths == {ASIAN}, encoding
        table = texts[2]
        assert all(key in table for key in ids), encoding
        is_unicode = encoding.startswith("utf")
        paths = {row["data.path"] for row in rows}
        escaped = "/data/\\u82b1 \\u30c7\\u30fc\\u30bf"
        assert paths == {ASIAN if is_unicode else escaped}, encoding
        assert ("花" in table) == is_unicode, encoding


def test_no_command_prints_control_characters_of_a_record(tmp_path: Path) -> None:
    results = tmp_path / "runs"
    for seed, status in enumerate(("ok", "ok", "failed")):
        bad = named(f"bat{NASTY}ch", seed, NASTY, status=status, error=NASTY)
        bad = bad.model_copy(update={"metrics": {f"test/{NASTY}": 1.0}})
        written(results, bad)
    commands = [
        ["results"],
        ["results", "--csv"],
        ["results", "--json"],
        ["results", "--by", "norm"],
        ["results", "--where", f"norm=bat{NASTY}"],
        ["results", "--where", f"{NASTY}=1"],
        ["show", bad.run_id],
        ["show", bad.run_id, "--json"],
        ["show", NASTY],
        ["status"],
        ["status", "--results", f"{results}{NASTY}"],
        [f"no{NASTY}"],
        ["list", f"no{NASTY}"],
    ]
    output = terminal_output(
        *(sys.executable, "-c", RUN_COMMANDS, json.dumps(commands)),
        NORMBENCH_RESULTS=str(results),
    )
    texts = re.split(r"<end> \d\r\n", output)
    assert len(texts) == len(commands) + 1, output
    for command, text in zip(commands, texts, strict=False):
        assert "Traceback" not in text, (command, text)
        assert_harmless(text, command)
        if "--json" in command:
            json.loads(text)
    assert "owned" in texts[0]


def assert_harmless(output: str, command: object) -> None:
    """Assert that `output` has no control characters except colours and newlines."""
    rest = re.sub(r"\x1b\[[0-9;]*m|\r\n", "", output)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", rest), (command, rest)
    assert "\x1b[31m" not in output and "\x1b[2J" not in output, command


BAR = f"""
from normbench.system import streams
streams.install()
from normbench.cli.progress import Lines, SweepProgress, run_observer
from normbench.cli.console import Terminal
nasty = {NASTY!r} + "[/red]"
for observer in (run_observer(), Lines()):
    observer.start(nasty, 2)
    observer.log({{"step": 1, nasty: 1.0, "val/loss": 1.0}})
    observer.note(nasty)
    observer.warn(nasty)
    observer.close()
sweep = SweepProgress(Terminal(stderr=True))
sweep.start(2, None)
sweep.tally.running["a"] = nasty
sweep.warn(nasty)
sweep.unrecorded("a", nasty)
sweep.close()
"""


def test_progress_prints_no_control_characters_of_a_name() -> None:
    output = terminal_output(sys.executable, "-c", BAR)
    assert "1/2" in output and "loss" in output  # a progress bar
    assert "\\u001b]0;owned\\u0007" in output
    for sequence in ("\x1b]", "\x9b", "\x07", "\x1b[2J\\", "\x7f", "\u202e"):
        assert sequence not in output, repr(sequence)


@given(st.text())
def test_clean_text_has_no_control_characters_and_keeps_json(text: str) -> None:
    cleaned = clean(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", cleaned)
    quoted = json.dumps(text, ensure_ascii=False)
    assert json.loads(clean(quoted)) == text


def test_csv_escapes_formulas_but_not_numbers(invoke: Command, tmp_path: Path) -> None:
    formulas = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\uff1d1"]
    for seed, formula in enumerate(formulas):
        metrics = {"test/error": -0.5, "=cmd()": 1e-9}
        written(tmp_path, named(formula, seed, formula, metrics=metrics))
    done = invoke("results", "--csv", "--results", str(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert sorted(row["norm"] for row in rows) == sorted(f"'{f}" for f in formulas)
    assert all(row["data.path"] == row["norm"] for row in rows)
    assert {(row["test/error"], row["'=cmd()"]) for row in rows} == {("-0.5", "1e-09")}
    by = invoke("results", "--by", "norm", "--csv", "--results", str(tmp_path))
    cells = list(csv.DictReader(io.StringIO(by.stdout)))
    assert sorted(cell["norm"] for cell in cells) == sorted(f"'{f}" for f in formulas)
    assert {cell["mean"] for cell in cells} == {"-0.5"}
    # Some spreadsheets also split a line at semicolons.
    other = tmp_path / "other"
    written(other, named("a;=1+1;b", path="c;d", metrics={"test/error": 0.5}))
    text = invoke("results", "--csv", "--results", str(other)).stdout
    assert '"a;\'=1+1;b"' in text and '"c;d"' in text, text
    assert ",0.5" in text  # a number has no quotes
    for line in text.splitlines():
        assert not any(cell[:1] == "=" for cell in line.split(";")), line
