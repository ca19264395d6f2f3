"""Text of a stranger cannot control a terminal, a spreadsheet or an encoding."""

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

SEVERAL = """
import json, sys
from normbench.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["normbench", *words]
    try:
        main()
    except SystemExit as end:
        print("<end>", end.code)
"""
"""The program, once for each command that it is given: importing takes a moment."""
NASTY = "\x1b]0;owned\x07\x9b31m\x1b[2J\r\x7f\u202e"
"""A title for the terminal, colours, an empty screen, and text from right to left."""
ASIAN = "/data/花 データ"


def named(norm: str, seed: int = 0, path: str = ASIAN, **changes: Any) -> RunRecord:
    """A record whose norm and data are called so."""
    data = Choice(name="own", path=path)
    own = {"seed": seed, "norm": Choice(name=norm), "data": data}
    config = A_RECORD.config.model_copy(update=own)
    return A_RECORD.model_copy(
        update={"config": config, "run_id": run_id(config), **changes}
    )


def seen_on_a_terminal(*words: str, **environment: str) -> str:
    """What a command writes to a terminal."""
    screen, terminal = pty.openpty()
    with subprocess.Popen(
        words,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"} | environment,
        stdout=terminal,
        stderr=terminal,
    ):
        os.close(terminal)
        shown = b""
        while piece := read(screen):
            shown += piece
    os.close(screen)
    return shown.decode()


def read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the end of a terminal
        return b""


def test_what_a_stream_cannot_encode_is_written_otherwise(tmp_path: Path) -> None:
    results = tmp_path / "花"
    for seed in range(3):
        written(results, named(f"é{seed}", seed))
    ids = sorted(path.parent.name for path in results.rglob("result.json"))
    for encoding in ("ascii", "cp1252", "utf-8", "utf-16"):
        words = (["--csv"], ["--json"], [])
        commands = [["results", *each, "--results", str(results)] for each in words]
        done = subprocess.run(
            [sys.executable, "-c", SEVERAL, json.dumps(commands)],
            env=os.environ | {"PYTHONIOENCODING": encoding},
            capture_output=True,
        )
        texts = done.stdout.decode(encoding).split("<end> 0\n")
        assert len(texts) == 4 and texts[-1] == "", (encoding, done)
        rows = list(csv.DictReader(io.StringIO(texts[0])))
        assert sorted(row["run_id"] for row in rows) == ids, encoding
        plain = json.loads(texts[1])
        assert {each["config"]["data"]["path"] for each in plain} == {ASIAN}, encoding
        table = texts[2]
        assert all(key in table for key in ids), encoding
        as_is = encoding.startswith("utf")
        paths = {row["data.path"] for row in rows}
        escaped = "/data/\\u82b1 \\u30c7\\u30fc\\u30bf"
        assert paths == {ASIAN if as_is else escaped}, encoding
        assert ("花" in table) == as_is, encoding


def test_no_command_lets_a_record_command_the_terminal(tmp_path: Path) -> None:
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
    shown = seen_on_a_terminal(
        *(sys.executable, "-c", SEVERAL, json.dumps(commands)),
        NORMBENCH_RESULTS=str(results),
    )
    texts = re.split(r"<end> \d\r\n", shown)
    assert len(texts) == len(commands) + 1, shown
    for command, text in zip(commands, texts, strict=False):
        assert "Traceback" not in text, (command, text)
        assert_harmless(text, command)
        if "--json" in command:
            json.loads(text)
    assert "owned" in texts[0]


def assert_harmless(shown: str, what: object) -> None:
    """Of all commands only rich's colours, and the lines' own ends, are in `shown`."""
    rest = re.sub(r"\x1b\[[0-9;]*m|\r\n", "", shown)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", rest), (what, rest)
    assert "\x1b[31m" not in shown and "\x1b[2J" not in shown, what


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


def test_progress_does_not_let_a_name_command_the_terminal() -> None:
    shown = seen_on_a_terminal(sys.executable, "-c", BAR)
    assert "1/2" in shown and "loss" in shown  # a bar
    assert "\\u001b]0;owned\\u0007" in shown
    for command in ("\x1b]", "\x9b", "\x07", "\x1b[2J\\", "\x7f", "\u202e"):
        assert command not in shown, repr(command)


@given(st.text())
def test_clean_text_commands_nothing_and_json_of_it_is_the_same(text: str) -> None:
    cleaned = clean(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", cleaned)
    quoted = json.dumps(text, ensure_ascii=False)
    assert json.loads(clean(quoted)) == text


def test_csv_has_no_formula_and_its_numbers_are_numbers(
    invoke: Command, tmp_path: Path
) -> None:
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
    # A spreadsheet may split at semicolons, whatever this program writes.
    other = tmp_path / "other"
    written(other, named("a;=1+1;b", path="c;d", metrics={"test/error": 0.5}))
    text = invoke("results", "--csv", "--results", str(other)).stdout
    assert '"a;\'=1+1;b"' in text and '"c;d"' in text, text
    assert ",0.5" in text  # a number stays bare
    for line in text.splitlines():
        assert not any(cell[:1] == "=" for cell in line.split(";")), line
