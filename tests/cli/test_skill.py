"""`normbench skill` prints the skill for agents, whose commands work."""

import re

import typer
import yaml
from typer.testing import CliRunner

from normbench.cli import commands


def test_the_skill_has_a_header_and_commands_that_exist() -> None:
    done = CliRunner().invoke(commands.app, ["skill"])
    assert done.exit_code == 0
    _, header, text = done.stdout.split("---\n", 2)
    assert yaml.safe_load(header)["name"] == "normbench"
    assert len(yaml.safe_load(header)["description"]) < 1024
    group = typer.main.get_command(commands.app)
    lines = re.findall(r"`normbench ([a-z]+)([^`]*)`", text)
    assert len(lines) > 8
    for name, rest in lines:
        command = group.commands[name]
        options = {o for p in _parameters(command) for o in p.opts}
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in options, (name, option)


def _parameters(command: typer.core.TyperCommand) -> list[typer.core.TyperOption]:
    inner = getattr(command, "commands", {}).values()
    return [*command.params, *(p for each in inner for p in each.params)]
