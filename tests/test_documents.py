"""Every command, link, key and number of a design that the documents show is right.

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
from typing import Any, get_args

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
    FENCE,
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
from normbench.config.choices import choices, config_root
from normbench.config.composition import compose
from normbench.data.base import REGISTRY as DATA
from normbench.norms import REGISTRY
from normbench.probes.base import PROBES
from normbench.records.query import flat
from normbench.records.store import Results
from normbench.report.text.verdict import text as verdict_text
from normbench.report.words import headline
from normbench.tasks.base import REGISTRY as TASKS
from normbench.training.experiment import run_one
from normbench.verdicts.contrasts import decide
from normbench.verdicts.registration import read_claim
from normbench.verdicts.verdict import Decision, read_verdict

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
    "plot": TO_ITS_END,
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
"""How a command that is shown is tried: to its end, or up to the function that takes
long, needs a network or an account. All before it, parsing, composing, planning, is
done, on a small folder of results. An option may have an entry of its own. A registered
claim is prepared, in every budget, by tests/verdicts/test_registration.py."""


class Planned(Exception):
    """A command came to what takes long."""


def stop(*_: object, **__: object) -> None:
    raise Planned


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
        monkeypatch.setattr(registry, "_schemas", dict(registry._schemas))
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
    if not isinstance(done.exception, Planned):
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
    """What the demo gives to normbench, said by one that only says it."""
    for name, does in {
        "scripts/demo": script.read_text(),
        "scripts/install": "#!/bin/sh\n",
        ".venv/bin/normbench": "#!/bin/sh\nprintf '%s\\t' normbench \"$@\"; echo\n",
    }.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(does)
        file.chmod(0o755)
    said = subprocess.run(
        [folder / "scripts" / "demo"], check=True, capture_output=True, text=True
    ).stdout
    lines = [line.rstrip("\t").split("\t") for line in said.splitlines() if line]
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
def test_a_command_that_is_shown_works(
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
    found = (
        each
        for document in DOCUMENTS
        for each in re.findall(r"`normbench\s([^`]+)`", without_blocks(document))
    )
    return sorted({" ".join(each.split()) for each in found if each[0] != "-"})


@pytest.mark.parametrize("line", inline())
def test_a_command_in_a_sentence_is_one(line: str) -> None:
    name, rest = split(words_of(line))
    command: Any = typer.main.get_command(app)
    for word in name.split():
        command = command.commands[word]
    if rest:
        command.make_context(name, rest, resilient_parsing="..." in rest)


def test_how_commands_are_tried_names_commands() -> None:
    for name in TRIED:
        known, options = split(name.split())
        assert known and all(option.startswith("--") for option in options)


def test_every_block_is_of_a_known_language() -> None:
    for block in blocks():
        known = (*COMMANDS, "text", "python", "yaml")
        assert block.language in known, block.document


def python() -> list[str]:
    """Of CONTRIBUTING, tests/training/test_recipes.py does them."""
    documents = [path for path in DOCUMENTS if path.name != "CONTRIBUTING.md"]
    return [each.text for each in blocks(documents) if each.language == "python"]


@pytest.mark.parametrize("text", python())
def test_python_that_is_shown_runs(text: str) -> None:
    exec(compile(text, "document", "exec"), {})


def anchors(document: Path) -> set[str]:
    """Those that a forge makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", without_blocks(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_a_document_names_exists(document: Path) -> None:
    text = without_blocks(document)
    named = re.findall(r"`((?:normbench|configs|scripts|tests|docs)/[\w./-]+)`", text)
    for name in named:
        if "NAME" not in name:
            assert (ROOT / name).exists(), name
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", text)
    assert named or links
    for link in links:
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_reached_from_the_readme() -> None:
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page not in seen and page.suffix == ".md":
            seen.add(page)
            links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
            todo += [(page.parent / link).resolve() for link in links]
    assert set(DOCUMENTS) <= seen


def rows(text: str) -> list[list[str]]:
    """The cells of every table, without backticks; a `|` in code is `\\|`."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    parts = (re.split(r"(?<!\\)\|", line)[1:-1] for line in lines)
    return [[cell.strip().replace("`", "") for cell in part] for part in parts]


@pytest.mark.parametrize("task", TASKS.names())
def test_the_page_of_a_task_has_its_defaults(task: str) -> None:
    page = (ROOT / "docs" / "tasks" / f"{task}.md").read_text()
    known = flat(compose([f"task={task}"]))
    shown = {cells[0]: cells[1] for cells in rows(page) if cells[0] in known}
    options = compose([f"task={task}"]).task.options
    assert {f"task.{key}" for key in options} <= shown.keys()
    for key, default in shown.items():
        value = known[key]
        expected = "null" if value is None else str(value).replace("'", "")
        assert yaml.safe_load(default) == yaml.safe_load(expected), key


@pytest.mark.parametrize("name", choices("claim"))
def test_the_page_of_a_claim_is_as_registered(name: str) -> None:
    page = (ROOT / "docs" / "claims" / f"{name}.md").read_text()
    claim = read_claim(name)
    told = " ".join(page.replace("\n> ", " ").split())
    assert claim.statement in told
    assert f"Source: {claim.source}." in told
    for theorem in claim.theorems:
        assert f"`{theorem.check}`" in told
    table = rows(page)
    for design_name, design in claim.designs().items():
        rates = ", ".join(f"{rate:g}" for rate in design.rates)
        gate = f"{design.gate.metric} < {design.gate.below:g}"
        counts = [str(len(design.all_cells())), str(design.seeds)]
        assert [design_name, *counts, rates, gate] in table
        for contrast in design.contrasts:
            if contrast.primary:
                says = {"not_greater": "not greater"}.get(contrast.says, contrast.says)
                row = [design_name, contrast.name, says, f"{contrast.margin:g}"]
                assert row in table


@pytest.mark.parametrize(
    ("kind", "known"), [("task", TASKS.names()), ("claim", choices("claim"))]
)
def test_no_page_is_of_something_that_is_gone(kind: str, known: Sequence[str]) -> None:
    pages = (ROOT / "docs" / f"{kind}s").glob("*.md")
    assert {page.stem for page in pages} == set(known)


def test_the_readme_shows_the_commands_that_matter() -> None:
    assert len(arguments_of("train")) >= 4
    for command in ("config", "sweep", "results", "show", "claim", "compare"):
        assert arguments_of(command)


def test_the_readme_sorts_norms_by_what_they_declare() -> None:
    """A new norm need not be in it: `list norms` has all."""
    table = (ROOT / "README.md").read_text().partition("| an output depends on |")[2]
    rows = [row.split("|") for row in table.partition("\n\n")[0].splitlines()[2:]]
    listed = {what.strip(): re.findall(r"`(\w+)`", cell) for _, what, cell, _ in rows}
    assert sum(map(len, listed.values())) > 20
    for what, norms in listed.items():
        for name in norms:
            assert what in dependence(REGISTRY.get(name).axes), name


def dependence(axes: str) -> list[str]:
    """The README's words for what an output depends on."""
    if "all samples" in axes:
        return ["other samples", "both"]
    _, channels, positions = axes.split(", ")
    if positions == "one position":
        return ["itself" if channels == "one channel" else "its position's channels"]
    if channels == "one channel":
        return ["its sample's channel"]
    return ["its sample's group of channels, or all"]


def reading() -> str:
    return (ROOT / "docs" / "reading-a-verdict.md").read_text()


def test_the_verdict_that_is_read_line_by_line_is_the_committed_one() -> None:
    """If it is no more: paste what `normbench claim show` prints, and read it anew."""
    shown = reading().split("## A real verdict")[1]
    (name,) = re.findall(r"^normbench claim show (\S+)$", shown, re.MULTILINE)
    verdict = read_verdict(ROOT / "results" / "claims" / name / "verdict.json")
    assert verdict is not None
    assert f"```text\n{verdict_text(verdict, 88)}\n```" in shown


def test_pictures_of_intervals_are_decided_as_they_say() -> None:
    """A line is a decision and, of 29 characters, a picture; a margin is 6 of them."""
    words = {headline(decision): decision for decision in get_args(Decision)}
    section = reading().split("## Five decisions")[1].split("\n## ")[0]
    pictures = [text for _, language, text in FENCE.findall(section)]
    for says, lines in zip(("greater", "equal", "not_greater"), pictures, strict=True):
        for line in lines.splitlines():
            decision, drawn = words[line[:24].strip()], line[24:53]
            marks = [i - 14 for i, mark in enumerate(drawn) if mark in "-o"]
            low, high = float(min(marks)), float(max(marks))
            told = {"margin": 6.0, "low": low, "high": high}
            told |= {"low_margin": low, "high_margin": high}
            assert decide(says, told, alpha=0.05)[0] == decision, line
