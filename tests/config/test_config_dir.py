"""Every command with the option --config-dir can use every choice in that folder."""

import inspect
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import normbench.claims.check
import normbench.training.experiment
from normbench.cli import app
from normbench.config.composer import Composer
from normbench.config.overrides import parse
from normbench.errors import NormbenchError

STOPPED = "the test stops after the composition"

USERS_FILES = {
    "norm/mine": "# My groups\ndefaults: [group]\nnum_groups: 4\n",
    "norm/plain": "# My groups\nname: group\nnum_groups: 4\n",
    "task/mine": "# @package _global_\n# My network\ndefaults: [cnn, _self_]\n"
    "task: {width: 8, stem_stride: 2}\n",
    "data/mine": "# My pictures\ndefaults: [mnist5k]\nsize: 14\n",
    "budget/mine": "# My budget\nepochs: 1\nmax_steps: 2\n",
    "optimizer/mine": "# My optimizer\ndefaults: [adamw]\nlr: 0.003\n",
    "tracker/mine": "# My tracker\ndefaults: [none]\n",
    "engine/mine": "# My engine\ndefaults: [local]\nworkers: 1\n",
    "experiment/mine": "# @package _global_\n# My experiment\nbatch_size: 16\n",
}
RUN = (
    "task=mine data=mine budget=mine optimizer=mine tracker=mine engine=mine "
    "+experiment=mine"
).split()
COMPARED = [word for word in RUN if not word.startswith(("tracker", "engine"))]
COMMANDS: dict[tuple[str, ...], list[list[str]]] = {
    ("train",): [[*RUN, "norm=mine"]],
    ("config",): [[*RUN, "norm=mine"]],
    ("doctor",): [[*RUN, "norm=mine"]],
    ("sweep",): [
        [*RUN, "norm=mine,plain", "--dry-run"],
        [*RUN, "--dry-run", "--arm", "norm=mine", "--arm", "norm=batch"],
    ],
    ("status",): [[*RUN, "norm=glob(mi*)"]],
    ("list",): [
        [group]
        for group in (
            *("norms", "tasks", "data", "budgets", "optimizers", "trackers"),
            *("engines", "probes"),
        )
    ],
    ("footprint",): [["mine", "plain"]],
    ("compare",): [
        [*COMPARED, "--arm", "norm=mine", "--arm", "norm=batch"],
        [*COMPARED, "--arm", "norm=mine,batch", "tracker=none"],
        ["--arm", "norm=mine,batch", "--engine", "engine=mine", "budget=mine,smoke"],
    ],
    ("claim", "list"): [[]],
    ("claim", "show"): [["mine"]],
    ("claim", "check"): [
        ["mine", "--budget", "smoke", "--engine", "engine=mine", "--arm", "norm=plain"]
    ],
    ("plot",): [["mine"]],
    ("report",): [["--output", "page"]],
    ("recommend",): [["--task", "images"]],
}
CLAIM = f"""# My claim
name: mine
statement: Mine is better.
source: me
confounds: [none]
parts:
  mine: {{sentence: Mine is better., scope: here}}
outcomes:
  error:
    question: Is it?
    common: {" ".join(COMPARED)}
    arms: {{mine: norm=mine, batch: norm=batch}}
    rates: [0.1]
    validation: val/error
    seconds: 1.0
    gate: {{metric: train/error, below: 0.9}}
    contrasts:
      - {{name: a, metric: test/error, weights: {{mine@-: 1, batch@-: -1}}, says: less, margin: 0.01, reason: none, part: mine, bears: for}}
"""  # noqa: E501


def with_the_option(
    group: typer.Typer = app, prefix: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Yield the words of all commands that have the option --config-dir."""
    for command in group.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        if "config_dir" in inspect.signature(command.callback).parameters:
            yield (*prefix, name)
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from with_the_option(inner.typer_instance, (*prefix, str(inner.name)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with a choice of every group, and replace training by an error."""
    for name, text in (USERS_FILES | {"claim/mine": CLAIM}).items():
        file = tmp_path / "own" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def stop(*arguments: object, **options: object) -> None:
        raise NormbenchError(STOPPED)

    monkeypatch.setattr(normbench.training.experiment, "run_one", stop)
    monkeypatch.setattr(normbench.claims.check, "check", stop)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "own"


def test_every_command_with_a_config_dir_is_in_this_test() -> None:
    assert set(with_the_option()) == COMMANDS.keys()


@pytest.mark.slow
@pytest.mark.usefixtures("no_package_verdicts")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_with_a_config_dir_finds_its_choices(
    folder: Path, command: tuple[str, ...]
) -> None:
    for request in COMMANDS[command]:
        output = output_of([*command, *request, "--config-dir", str(folder)])
        if command == ("list",) and request != ["probes"]:
            assert "mine" in output
        if command == ("claim", "list"):
            assert "Mine is better." in output
        if command == ("config",):
            assert "num_groups: 4" in output
            assert "lr: 0.003" in output
            assert "batch_size: 16" in output


def output_of(arguments: Sequence[str]) -> str:
    """Return the output of a command that succeeds or that the fixture stops."""
    done = CliRunner().invoke(app, arguments)
    details = (shlex.join(arguments), done.output, done.exception)
    if done.exit_code != 0:
        expected = (STOPPED, "mine/verdict.json nor the package")
        assert any(text in done.output for text in expected), details
    assert "Traceback" not in done.output, details
    return done.output


def refused(*arguments: str) -> str:
    """Return the output of a command that refuses its request."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2, done.output
    return done.output


def test_a_comparison_refuses_equal_arms_and_keys_that_its_options_set(
    folder: Path,
) -> None:
    compare = ["compare", *COMPARED, "--config-dir", str(folder)]
    for arms, message in (
        (["--arm", "norm=mine", "--arm", "norm=plain"], "are the same runs"),
        (["--arm", "norm=layer,layer_sample"], "are the same runs"),
        (["--arm", "norm=batch,batch"], "two arms or more"),
    ):
        assert message in refused(*compare, *arms)
    for override, message in {
        "tracker=wandb": "the runs have no tracker",
        "tracker.mode=online": "the runs have no tracker",
        "lr=0.1": "--rates",
        "++lr=0.1": "--rates",
        "seed=3": "--seeds",
        "engine=local": "--engine",
        "probes=[discrepancy]": "the design sets the probes",
    }.items():
        arguments = ["compare", "task=cnn", "--arm", "norm=batch,group", override]
        assert message in refused(*arguments), override


def test_a_pipe_in_a_config_dir_does_not_block_a_mistyped_key(
    folder: Path,
) -> None:
    os.mkfifo(folder / "norm" / "pipe.yaml")
    output = refused("config", "lr_typo=1", "--config-dir", str(folder))
    assert "lr_typo is not a key" in output


def test_interpolations_that_expand_too_far_are_refused(folder: Path) -> None:
    file = folder / "norm" / "mine.yaml"
    arguments = ["config", "norm=mine", "--config-dir", str(folder)]
    texts = [f"b{i}: " + f"${{norm.b{i - 1}}}" * 10 for i in range(1, 9)]
    maps = [
        f"b{i}: {{x: '${{norm.b{i - 1}}}', y: '${{norm.b{i - 1}}}'}}"
        for i in range(1, 40)
    ]
    for bomb in (texts, maps):
        file.write_text("\n".join(["name: group", "num_groups: 4", "b0: ab", *bomb]))
        for more in ([], ["norm.b8.x=1"], ["norm.typo=1"]):
            (line,) = refused(*arguments, *more).splitlines()
            assert "interpolations" in line, line
            assert str(file) in line, line
    few = "\n".join(f"num_groups_{i}: ${{norm.num_groups}}" for i in range(9))
    file.write_text(f"name: group\nnum_groups: 4\neps: 1e-3\n{few}\n")
    values = Composer(folder)([parse("norm=mine", folder)])
    assert values["norm"]["num_groups_8"] == 4


def test_list_names_a_broken_choice_in_a_config_dir(folder: Path) -> None:
    for text in ("name: group\neps: &a [*a]\n", "name: group\nnum_groups: ${a.b}\n"):
        (folder / "norm" / "mine.yaml").write_text(text)
        (line,) = refused("list", "norms", "--config-dir", str(folder)).splitlines()
        assert "norm" in line
