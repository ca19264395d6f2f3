"""The help screens: panels, lines that are not cut, and examples that work."""

import inspect
import os
import shlex
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from conftest import Command
from typer.core import TyperGroup

from normbench.cli.commands import PANELS, app
from normbench.cli.examples import EXAMPLES
from normbench.cli.help import MAX_SUMMARY, print_help
from normbench.config.composer import Composer
from normbench.config.composition import resolve
from normbench.config.overrides import grid, parse
from normbench.config.overrides import words as split
from normbench.system.streams import Output, Stream

ROOT: Any = typer.main.get_command(app)
MAX_EXAMPLE = 76


def commands(group: TyperGroup = ROOT, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the words and the object of every command, and of every group."""
    for name, command in group.commands.items():
        yield f"{path}{name}", command
        if isinstance(command, TyperGroup):
            yield from commands(command, f"{path}{name} ")


def test_every_first_line_and_every_option_reads_well() -> None:
    assert {command.rich_help_panel for command in ROOT.commands.values()} == {*PANELS}
    for name, command in commands():
        summary = inspect.cleandoc(command.help).partition("\n")[0]
        assert summary.endswith("."), name
        assert len(summary) <= MAX_SUMMARY, (name, len(summary))
        for parameter in command.params:
            needs_one = not getattr(parameter, "is_flag", False)
            assert bool(parameter.metavar) == needs_one, (name, parameter.name)
            assert parameter.help, (name, parameter.name)


def screen(name: str) -> str:
    """Return the help of a command, such as "claim check"."""
    context = typer.Context(ROOT, info_name="normbench", **ROOT.context_settings)
    for word in name.split():
        command = context.command.commands[word]
        context = typer.Context(command, info_name=word, parent=context)
    return str(context.get_help())


def words_of(text: str) -> list[str]:
    """Return the words of a screen, whose lines depend on the width."""
    return text.split()


def test_a_screen_fits_80_columns_and_has_all_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name, command in [("", ROOT), *commands()]:
        lines = screen(name).splitlines()
        assert max(map(len, lines)) <= 80, name
        assert not [line for line in lines[1:] if line.endswith("...")], name
        if not isinstance(command, TyperGroup):
            examples = inspect.cleandoc(EXAMPLES[name]).splitlines()
            end = lines.index("Examples:")
            assert [line[2:] for line in lines[end + 1 :]] == examples


def test_the_help_of_a_command_can_be_asked_in_four_ways(invoke: Command) -> None:
    expected = words_of(screen("claim check"))
    for words in (["help", "claim", "check"], ["claim", "check", "-h"]):
        shown = invoke(*words)
        assert (shown.returncode, words_of(shown.stdout)) == (0, expected)
    assert invoke("--help").stdout == invoke("help").stdout
    wrong = invoke("help", "nothing")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "no command 'nothing'" in wrong.stderr
    without = invoke()
    assert (without.returncode, without.stdout) == (2, invoke("-h").stdout)


def test_an_option_that_is_a_key_of_the_config_gets_a_hint(invoke: Command) -> None:
    for option, key in (
        ("--batch-size", "batch_size"),
        ("--norm=group", "norm"),
        ("--max-epochs", "budget.epochs"),
    ):
        refused = invoke("compare", option, "2")
        assert refused.returncode == 2
        assert f"write {key}=VALUE" in " ".join(refused.stderr.split())
    assert "No such option: --sed" in invoke("train", "--sed", "2").stderr
    without_keys = invoke("skill", "--batch-size", "2").stderr
    assert "No such option: --batch-size" in without_keys


def examples() -> Iterator[tuple[str, list[str]]]:
    """Yield the name of a command and the words of an example of it."""
    for name, text in EXAMPLES.items():
        lines = inspect.cleandoc(text).splitlines()
        assert max(map(len, lines)) <= MAX_EXAMPLE, name
        # A command without options, `skill`, needs one example.
        least = 3 if name != "skill" else 1
        assert least <= sum(line[0] != "#" for line in lines) <= 5, name
        assert lines[0][0] == "#" and lines[-1][0] != "#", name
        for line in lines:
            program, *words = shlex.split(line)
            if program != "#":
                assert [program, *words][: 1 + len(name.split())] == [
                    "normbench",
                    *name.split(),
                ]
                end = words.index(">") if ">" in words else len(words)
                yield name, words[len(name.split()) : end]


def test_every_command_has_examples_that_parse_and_compose() -> None:
    known, composer = dict(commands()), Composer()
    assert {*EXAMPLES} == {
        name for name, command in known.items() if not isinstance(command, TyperGroup)
    }
    for name, words in examples():
        values = known[name].make_context(name, list(words)).params
        overrides, arms = values.get("overrides") or [], values.get("arm") or []
        if name in {"train", "config", "doctor"}:
            resolve(composer([parse(text) for text in overrides]))
        elif name in {"sweep", "status"} and overrides + arms:
            for arm in arms or [""]:
                first, *_ = grid([*overrides, *split(arm)], None)
                resolve(composer(first))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_has_colours_unless_its_user_wants_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for without, expected in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", without)
        reader, writer = os.openpty()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", Stream(Output(None, writer, waits=True)))
            print_help(
                ROOT.make_context("normbench", ["bench"], resilient_parsing=True)
            )
        screen = os.read(reader, 10_000).decode()
        assert ("\x1b[1mStart:\x1b[0m" in screen) == expected
        assert ("\x1b[36mtrain\x1b[0m " in screen) == expected
        assert "u001b" not in screen
        os.close(reader)
        os.close(writer)
