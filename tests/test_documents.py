"""Every command in the documents works.

The tests run the commands in this process. `STOPS` has a line for each command.
"""

import importlib
import os
import pkgutil
import re
import runpy
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
    marked_commands,
    without_blocks,
    words_of,
    write_network,
    write_network_to_examine,
    write_recipe_for_a_claim,
    write_recipe_for_a_data_set,
    write_recipe_for_a_norm,
    write_recipe_for_a_probe,
    write_recipe_for_a_task,
)
from hydra.core.override_parser.overrides_parser import OverridesParser
from records_made import a_record, written
from typer.core import TyperGroup
from typer.testing import CliRunner
from verdicts_made import a_design, a_verdict, judge, pair

import normbench
from normbench.cli import app
from normbench.config.choices import choices, config_root
from normbench.config.composition import compose
from normbench.data.base import REGISTRY as DATA
from normbench.norms import REGISTRY
from normbench.probes.base import PROBES
from normbench.records.store import Results
from normbench.tasks.base import REGISTRY as TASKS
from normbench.training.experiment import run_one
from normbench.verdicts.files import as_recorded

TO_THE_END = None
STOPS = {
    "bench norms": "normbench.norms.measure.cost.measure",
    "claim check": "normbench.claims.check.prepare",
    "claim check --arm": "normbench.claims.check.check",
    "claim check --from-records": "normbench.claims.saved.judge_again",
    "claim list": TO_THE_END,
    "claim show": TO_THE_END,
    "compare": "normbench.claims.check.check",
    "compare --minutes": "normbench.claims.race.race",
    "config": TO_THE_END,
    "footprint": "normbench.api.footprints.footprint",
    "dashboard": TO_THE_END,
    "dashboard --publish": "normbench.report.dashboard.publish",
    "list": "normbench.training.catalogue.catalogue",
    "plot": "normbench.report.figures.drawing.save",
    "recommend": TO_THE_END,
    "report": "normbench.report.page.document.write",
    "rerun": "normbench.training.experiment.run_one",
    "results": TO_THE_END,
    "show": TO_THE_END,
    "status": TO_THE_END,
    "doctor": "normbench.sweeps.doctor.examine",
    "doctor --model": TO_THE_END,
    "stylize": TO_THE_END,
    "sweep": "normbench.sweeps.round.run_all",
    "sync": TO_THE_END,
    "train": "normbench.training.experiment.run_one",
    "watch": "normbench.sweeps.watch.Watch",
}
"""The function at which the test of a command stops, or TO_THE_END.

Such a function takes long, or needs a network or an account. The command does all that
comes before it: parsing, composing and planning. An option may have its own entry.
tests/verdicts/test_registration.py prepares every registered claim."""


class Stop(Exception):
    """A command has reached its function in `STOPS`."""


def stop(*_: object, **__: object) -> None:
    raise Stop


def split(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the name of a command, such as "claim check", and its arguments."""
    command, rest = typer.main.get_command(app), list(words)
    name = []
    while isinstance(command, TyperGroup) and rest and rest[0] in command.commands:
        name.append(rest.pop(0))
        command = command.commands[name[-1]]
    return " ".join(name), rest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the recipes, a few runs, the committed verdicts."""
    # A module that is imported while a test replaces a function would keep `stop`.
    for module in pkgutil.walk_packages(normbench.__path__, "normbench."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    folder = tmp_path_factory.mktemp("reader")
    write_recipe_for_a_norm(folder, folder / "mine" / "norm")
    write_recipe_for_a_probe(folder)
    write_network(folder)
    write_recipe_for_a_data_set(folder, folder / "mine" / "data")
    write_recipe_for_a_task(folder, folder / "mine" / "task")
    write_recipe_for_a_claim(folder / "mine")
    write_network_to_examine(folder)
    shutil.copytree(ROOT / "results" / "claims", folder / "results" / "claims")
    write_missing_verdicts(folder / "results" / "claims")
    styles = {"style": [*SMALL["style"], "data.styles=[brick,grass]"]}
    cheap = ["budget=smoke", "budget.max_steps=1", "tracker=none"]
    cheap += ["evaluation.train_samples=64", "evaluation.recompute_samples=64"]
    cheap.append("evaluation.at_end=[train,test_recomputed]")
    for small in (SMALL | styles).values():
        run_one(compose([*small, *cheap]), Results(folder / "results" / "runs"))
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    with pytest.MonkeyPatch.context() as patch:
        write_the_users_files(folder, patch)
    return folder


def write_missing_verdicts(claims: Path) -> None:
    """Write a made-up verdict for each claim that has none yet."""
    verdict = a_verdict(judge(a_design(), pair([-0.05, *[-0.04] * 7])))
    for name in choices("claim"):
        file = claims / name / "verdict.json"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            changed = verdict.model_copy(update={"claim": name})
            file.write_text(as_recorded(changed))


def write_the_users_files(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Write the data and config files that commands of the documents name."""
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
    (folder / "DIR").mkdir()  # a folder without verdicts


@pytest.fixture
def reader(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Change to the folder; at the end, undo what commands have registered."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delenv("NORMBENCH_RESULTS", raising=False)
    PROBES.names()
    for registry in (REGISTRY, DATA, TASKS):
        registry.names()
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    monkeypatch.setattr(PROBES, "_functions", dict(PROBES._functions))
    monkeypatch.setattr(PROBES, "_data", dict(PROBES._data))
    handler = signal.getsignal(signal.SIGTERM)
    yield folder
    signal.signal(signal.SIGTERM, handler)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(folder)):
            del sys.modules[name]


def try_normbench(
    words: Sequence[str], reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, rest = split(words)
    assert name in STOPS, f"add a line for `normbench {' '.join(words)}` to STOPS"
    with_option = [f"{name} {word}" for word in rest if f"{name} {word}" in STOPS]
    function = STOPS[min(with_option, default=name)]
    if function is not TO_THE_END:
        monkeypatch.setattr(function, stop)
    # The yaml files of claims may be uncommitted while somebody edits them.
    monkeypatch.setattr("normbench.claims.lock.require_committed", lambda *_: None)
    # RUN_ID is a run of the style task: it keeps the weights that `stylize` needs.
    weights = reader.glob("results/runs/??/*/weights.safetensors")
    run_id = min(path.parent.name for path in weights)
    rest = [run_id if word == "RUN_ID" else word for word in rest]
    done = CliRunner().invoke(app, [*name.split(), *rest])
    if not isinstance(done.exception, Stop):
        assert done.exit_code == 0, done.output


def try_script(path: str, reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the syntax of a script; try the commands of `demo`."""
    script = ROOT / path
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)
    if script.name == "demo":
        for name, *words in commands_of_the_demo(script, reader / "demo"):
            try_normbench([name, *words], reader, monkeypatch)
            if name == "train":  # its test ends before it has a record to draw
                written(reader / "results" / "runs", a_record(*words))


def commands_of_the_demo(script: Path, folder: Path) -> list[list[str]]:
    """Return the arguments of normbench in the demo; a fake normbench prints them."""
    for name, content in {
        "scripts/demo": script.read_text(),
        "scripts/install": "#!/bin/sh\n",
        ".venv/bin/normbench": "#!/bin/sh\nprintf '%s\\t' normbench \"$@\"; echo\n",
    }.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        file.chmod(0o755)
    output = subprocess.run(
        [folder / "scripts" / "demo"], check=True, capture_output=True, text=True
    ).stdout
    commands = [line for line in output.splitlines() if line.startswith("normbench\t")]
    lines = [line.rstrip("\t").split("\t") for line in commands]
    assert [words[1] for words in lines] == ["train", "train", "results", "plot"]
    return [words for _, *words in lines]


def try_torchrun(
    words: Sequence[str], reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parse the options with torchrun, and try the normbench command that it starts."""
    options = torch.distributed.run.parse_args(words)
    assert options.module and options.training_script == "normbench"
    try_normbench(options.training_script_args, reader, monkeypatch)


def try_git(line: str, folder: Path) -> None:
    identity = {
        f"GIT_{role}_{field}": "reader"
        for role in ("AUTHOR", "COMMITTER")
        for field in ("NAME", "EMAIL")
    }
    environment = os.environ | identity
    subprocess.run(["bash", "-c", line], cwd=folder, env=environment, check=True)


def try_hydra(words: Sequence[str]) -> None:
    """Compose overrides as scripts/hydra_train.py does, except those of a sweep."""
    texts = [word for word in words if "=" in word]
    overrides = OverridesParser.create().parse_overrides(texts)
    fixed = [o.input_line for o in overrides if not o.is_sweep_override()]
    assert ("-m" in words) == (len(fixed) < len(overrides))
    with hydra.initialize_config_dir(str(config_root()), version_base="1.3"):
        hydra.compose("hydra_train", list(map(str, fixed)), return_hydra_config=True)


@pytest.mark.parametrize("line", marked_commands())
def test_a_command_in_a_block_works(
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
        pytest.fail(f"no function tries {program!r}; a block of output needs ```text")


def inline() -> list[str]:
    """Return the commands in sentences, such as `normbench show NAME`."""
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


def test_commands_of_stops_and_languages_of_blocks_exist() -> None:
    for name in STOPS:
        command, options = split(name.split())
        assert command and all(option.startswith("--") for option in options), name
    for block in blocks():
        languages = (*COMMANDS, "text", "python", "yaml")
        assert block.language in languages, block.document
    assert len(arguments_of("train")) >= 4
    for command in ("config", "sweep", "results", "show", "claim", "compare"):
        assert arguments_of(command), command


def test_the_tutorials_show_what_their_commands_print() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "write_outputs"))
    for page in script["PAGES"]:
        text = page.read_text(encoding="utf-8")
        shown = list(script["PAIR"].finditer(text))
        for match in shown:
            assert match[0].count("\n") > 5, f"{page}: run scripts/write_outputs"
        assert "```text\n```" not in text, f"{page}: run scripts/write_outputs"
    commands_of = script["commands"]
    english, korean = (ROOT / "docs" / f"{each}tutorial.md" for each in ("", "ko/"))
    assert list(commands_of(english)) == list(commands_of(korean))


def test_blocks_of_python_run() -> None:
    """tests/training/test_recipes.py runs the blocks of CONTRIBUTING.md."""
    documents = [path for path in DOCUMENTS if path.name != "CONTRIBUTING.md"]
    names: dict[Path, dict[str, Any]] = {path: {} for path in documents}
    for block in blocks(documents):
        if block.language == "python":
            code = compile(block.text, str(block.document), "exec")
            exec(code, names[block.document])
