"""Pages of tasks, claims, norms and verdicts agree with the program."""

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from documents import DOCUMENTS, FENCE, ROOT, without_blocks

from normbench.config.choices import choices
from normbench.config.composition import compose
from normbench.norms import REGISTRY
from normbench.records.query import flat
from normbench.report.text.verdict import text as verdict_text
from normbench.report.words import headline
from normbench.tasks.base import REGISTRY as TASKS
from normbench.verdicts.contrasts import decide
from normbench.verdicts.files import read_verdict
from normbench.verdicts.registration import read_claim
from normbench.verdicts.verdict import Decision


def anchors(document: Path) -> set[str]:
    """Return the anchors of the headings of a document, as on GitHub."""
    headings = re.findall(r"^#+ (.*)$", without_blocks(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_paths_and_links_in_a_document_exist(document: Path) -> None:
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
    """Return the cells of every table, without backticks; a `|` in code is `\\|`."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    parts = (re.split(r"(?<!\\)\|", line)[1:-1] for line in lines)
    return [[cell.strip().replace("`", "") for cell in part] for part in parts]


def test_the_page_of_a_task_has_its_defaults() -> None:
    for task in TASKS.names():
        page = (ROOT / "docs" / "tasks" / f"{task}.md").read_text()
        config = compose([f"task={task}"])
        known = flat(config)
        shown = {cells[0]: cells[1] for cells in rows(page) if cells[0] in known}
        assert {f"task.{option}" for option in config.task.options} <= shown.keys()
        for key, default in shown.items():
            value = known[key]
            expected = "null" if value is None else str(value).replace("'", "")
            assert yaml.safe_load(default) == yaml.safe_load(expected), (task, key)


@pytest.mark.parametrize("name", choices("claim"))
def test_the_page_of_a_claim_agrees_with_its_registration(name: str) -> None:
    page = (ROOT / "docs" / "claims" / f"{name}.md").read_text()
    claim = read_claim(name)
    text = " ".join(page.replace("\n> ", " ").split())
    assert claim.statement in text
    assert f"Source: {claim.source}." in text
    for theorem in claim.theorems:
        assert f"`{theorem.check}`" in text
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


def test_every_task_and_claim_has_a_page_and_no_page_is_left_over() -> None:
    for kind, known in (("task", TASKS.names()), ("claim", choices("claim"))):
        pages = (ROOT / "docs" / f"{kind}s").glob("*.md")
        assert {page.stem for page in pages} == set(known)


def test_the_readme_groups_norms_by_their_declared_properties() -> None:
    """The README may leave out a norm: `list norms` shows all."""
    table = (ROOT / "README.md").read_text().partition("| an output depends on |")[2]
    rows = [row.split("|") for row in table.partition("\n\n")[0].splitlines()[2:]]
    listed = {what.strip(): re.findall(r"`(\w+)`", cell) for _, what, cell, _ in rows}
    assert sum(map(len, listed.values())) > 20
    for what, norms in listed.items():
        for name in norms:
            assert what in dependence(REGISTRY.get(name).axes), name


def dependence(axes: str) -> list[str]:
    """Return the words of the README for the values that an output depends on."""
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


def test_the_explained_verdict_equals_the_committed_verdict() -> None:
    """If it fails: paste the output of `normbench claim show`, and check the page."""
    shown = reading().split("## A real verdict")[1]
    (name,) = re.findall(r"^normbench claim show (\S+)$", shown, re.MULTILINE)
    verdict = read_verdict(ROOT / "results" / "claims" / name / "verdict.json")
    assert verdict is not None
    assert f"```text\n{verdict_text(verdict, 88)}\n```" in shown


def test_pictures_of_intervals_show_the_right_decisions() -> None:
    """A line has a decision and a picture of 29 characters; a margin is 6 wide."""
    words = {headline(decision): decision for decision in get_args(Decision)}
    section = reading().split("## Five decisions")[1].split("\n## ")[0]
    pictures = [text for _, language, text in FENCE.findall(section)]
    for says, lines in zip(("greater", "equal", "not_greater"), pictures, strict=True):
        for line in lines.splitlines():
            decision, drawn = words[line[:24].strip()], line[24:53]
            marks = [i - 14 for i, mark in enumerate(drawn) if mark in "-o"]
            interval = float(min(marks)), float(max(marks))
            assert decide(says, 6.0, interval, interval, 0.05)[0] == decision, line
