"""Checks that every command in the documents works.

A command is tried in this process. To teach the tests a new one, add a line to `TRIED`.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import data_made
import hydra
import pytest
import torch.distributed.run
import typer
import wandb.cli.cli
import yaml
from conftest import SMALL
from documents import (
    COMMANDS,
    DOCUMENTS,
    ROOT,
    arguments_of,
    blocks,
    commands,
    without_blocks,
    words_of,
    write_recipe_for_a_claim,
    write_recipe_for_a_data_set,
    write_recipe_for_a_norm,
    write_recipe_for_a_probe,
)
from hydra.core.override_parser.overrides_parser import OverridesParser
from typer.core import TyperGroup
from typer.testing import CliRunner

from normbench.cli import app
from normbench.config.choices import config_root
from normbench.config.composition import compose
from normbench.data.base import REGISTRY as DATA
from normbench.norms import REGISTRY
from normbench.probes.base import PROBES
from normbench.records.store import Results
from normbench.training.experiment import run_one

TO_ITS_END = None
TRIED = {
    "bench norms": "normbench.norms.measure.cost.measure",
    "claim check": "normbench.claims.check.prepare",
    "claim check --arm": "normbench.claims.check.check",
    "claim check --from-records": "normbench.claims.check.restore_records",
    "claim list": TO_ITS_END,
    "claim show": TO_ITS_END,
    "compare": "normbench.claims.check.check",
    "config": TO_ITS_END,
    "footprint": "normbench.norms.measure.portrait.portrait",
    "dashboard": TO_ITS_END,
    "dashboard --publish": "normbench.report.dashboard.publish",
    "list": "normbench.training.catalogue.catalogue",
    "plot": "normbench.report.figures.drawing.save",
    "report": "normbench.report.page.document.write",
    "rerun": "normbench.training.experiment.run_one",
    "results": TO_ITS_END,
    "show": TO_ITS_END,
    "status": TO_ITS_END,
    "doctor": "normbench.sweeps.doctor.examine",
    "stylize": TO_ITS_END,
    "sweep": "normbench.sweeps.round.run_all",
    "sync": TO_ITS_END,
    "train": "normbench.training.experiment.run_one",
    "watch": "normbench.sweeps.watch.Watch",
}
"""How a command of a document is tried, on a small folder of results: to its end, or up
to a function that takes long or needs a network or an account. Everything before that
function (parsing, composing, planning) is done. An option may have an entry of its own.
tests/verdicts/test_registration.py prepares every registered claim."""


class Reached(Exception):
    """A command has reached the function that takes long."""


def stop(*_: object, **__: object) -> None:
    raise Reached


def split(words: Sequence[str]) -> tuple[str, list[str]]:
    """The name of a command, such as "claim check", and its arguments."""
    command, rest = typer.main.get_command(app), list(words)
    name = []
    while isinstance(command, TyperGroup) and rest and rest[0] in command.commands:
        name.append(rest.pop(0))
        command = command.commands[name[-1]]
    return " ".join(name), rest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader may be: the recipes' files, a few runs, the committed verdicts."""
    folder = tmp_path_factory.mktemp("reader")
    write_recipe_for_a_norm(folder, folder / "mine" / "norm")
    write_recipe_for_a_probe(folder)
    write_recipe_for_a_data_set(folder, folder / "mine" / "data")
    write_recipe_for_a_claim(folder / "mine")
    shutil.copytree(ROOT / "results" / "claims", folder / "results" / "claims")
    styles = {"style": [*SMALL["style"], "data.styles=[brick,grass]"]}
    for small in (SMALL | styles).values():
        config = compose([*small, "budget=smoke", "budget.max_steps=1", "tracker=none"])
        run_one(config, Results(folder / "results" / "runs"))
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    with pytest.MonkeyPatch.context() as patch:
        write_the_users_files(folder, patch)
    return folder


def write_the_users_files(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Those that the commands name, as the reader may have them."""
    data_made.image_folder(folder / "flowers", patch)
    data_made.text_csv(folder, patch)
    (folder / "texts.csv").rename(folder / "reviews.csv")
    table = (folder / "reviews.csv").read_text().replace("text,label", "Review,n,Stars")
    (folder / "stars.csv").write_text(table.replace('",', '",1,'))
    data_made.hf(folder / "imdb", patch)
    data_made.content_folder(folder, patch)
    (folder / "content").rename(folder / "photos")
    saved = compose([*SMALL["cnn"], "tracker=none"]).model_dump(mode="json")
    (folder / "config.yaml").write_text(yaml.safe_dump(saved))
    for name in ("a.jpg", "b.jpg", "cat.jpg", "dog.png"):
        data_made.picture(folder / name)


@pytest.fixture
def reader(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """In that folder; what a command registers is gone afterwards."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delenv("NORMBENCH_RESULTS", raising=False)
    PROBES.names()
    for registry in (REGISTRY, DATA):
        registry.names()
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    monkeypatch.setattr(PROBES, "_functions", dict(PROBES._functions))
    monkeypatch.setattr(PROBES, "_data", dict(PROBES._data))
    before = signal.getsignal(signal.SIGTERM)
    yield folder
    signal.signal(signal.SIGTERM, before)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(folder)):
            del sys.modules[name]


def try_normbench(
    words: Sequence[str], reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, rest = split(words)
    assert name in TRIED, f"how is `normbench {' '.join(words)}` tried? see TRIED"
    with_option = [f"{name} {word}" for word in rest if f"{name} {word}" in TRIED]
    function = TRIED[min(with_option, default=name)]
    if function is not TO_ITS_END:
        monkeypatch.setattr(function, stop)
    # What it refuses is tested where it is; here a yaml may be at work.
    monkeypatch.setattr("normbench.claims.check.require_committed", lambda *_: None)
    # Of the style task, whose runs keep weights: `stylize` needs them.
    weights = reader.glob("results/runs/??/*/weights.safetensors")
    run_id = min(path.parent.name for path in weights)
    rest = [run_id if word == "RUN_ID" else word for word in rest]
    done = CliRunner().invoke(app, [*name.split(), *rest])
    if not isinstance(done.exception, Reached):
        assert done.exit_code == 0, done.output


def try_script(path: str, reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there and is bash; `demo` without its install and its runs."""
    script = ROOT / path
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)
    if script.name == "demo":
        for words in commands_of_the_demo(script, reader / "demo"):
            try_normbench(words, reader, monkeypatch)


def commands_of_the_demo(script: Path, folder: Path) -> list[list[str]]:
    """The arguments of normbench in the demo, printed by a stand-in."""
    for name, does in {
        "scripts/demo": script.read_text(),
        "scripts/install": "#!/bin/sh\n",
        ".venv/bin/normbench": "#!/bin/sh\nprintf '%s\\t' normbench \"$@\"; echo\n",
    }.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(does)
        file.chmod(0o755)
    printed = subprocess.run(
        [folder / "scripts" / "demo"], check=True, capture_output=True, text=True
    ).stdout
    lines = [line.rstrip("\t").split("\t") for line in printed.splitlines() if line]
    assert len(lines) == 3
    return [words for _, *words in lines]


def try_torchrun(
    words: Sequence[str], reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch takes its options, and normbench what it would start with them."""
    options = torch.distributed.run.parse_args(words)
    assert options.module and options.training_script == "normbench"
    try_normbench(options.training_script_args, reader, monkeypatch)


def try_git(line: str, folder: Path) -> None:
    who = {
        f"GIT_{role}_{what}": "reader"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    subprocess.run(["bash", "-c", line], cwd=folder, env=os.environ | who, check=True)


def try_hydra(words: Sequence[str]) -> None:
    """Compose what scripts/hydra_train.py would; of a sweep, all but what is swept."""
    parsed = OverridesParser.create().parse_overrides([w for w in words if "=" in w])
    kept = [str(each.input_line) for each in parsed if not each.is_sweep_override()]
    assert ("-m" in words) == (len(kept) < len(parsed))
    with hydra.initialize_config_dir(str(config_root()), version_base="1.3"):
        hydra.compose("hydra_train", kept, return_hydra_config=True)


@pytest.mark.parametrize("line", commands(), ids=lambda line: " ".join(words_of(line)))
def test_a_command_in_a_code_block_works(
    line: str, reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, *rest = words_of(line)
    if program == "normbench":
        try_normbench(rest, reader, monkeypatch)
    elif program.startswith("./scripts/"):
        try_script(program, reader, monkeypatch)
    elif program == "torchrun":
        try_torchrun(rest, reader, monkeypatch)
    elif program == "git":
        try_git(line, reader)
    elif (program, rest[0]) == ("python", "scripts/hydra_train.py"):
        try_hydra(rest[1:])
    elif program == "wandb":
        assert rest[0] in wandb.cli.cli.cli.commands
        assert rest[1] == "ENTITY/PROJECT/SWEEP_ID" or (ROOT / rest[1]).is_file()
    else:
        pytest.fail(f"no test knows how to try {program!r}; output goes into ```text")


def inline() -> list[str]:
    """Commands within sentences; NAME and the like stand for a value."""
    texts = "\n".join(map(without_blocks, DOCUMENTS))
    lines = re.findall(r"`normbench\s([^`]+)`", texts)
    return sorted({" ".join(line.split()) for line in lines if line[0] != "-"})


def test_a_command_in_a_sentence_exists() -> None:
    for line in inline():
        name, rest = split(words_of(line))
        command: Any = typer.main.get_command(app)
        for word in name.split():
            assert word in command.commands, line
            command = command.commands[word]
        if rest:
            command.make_context(name, rest, resilient_parsing="..." in rest)


def test_commands_and_blocks_are_of_known_kinds() -> None:
    for name in TRIED:
        known, options = split(name.split())
        assert known and all(option.startswith("--") for option in options), name
    for block in blocks():
        languages = (*COMMANDS, "text", "python", "yaml")
        assert block.language in languages, block.document
    assert len(arguments_of("train")) >= 4
    for command in ("config", "sweep", "results", "show", "claim", "compare"):
        assert arguments_of(command), command


def test_python_in_a_code_block_runs() -> None:
    """tests/training/test_recipes.py runs the blocks of CONTRIBUTING.md."""
    documents = [path for path in DOCUMENTS if path.name != "CONTRIBUTING.md"]
    for block in blocks(documents):
        if block.language == "python":
            exec(compile(block.text, str(block.document), "exec"), {})
