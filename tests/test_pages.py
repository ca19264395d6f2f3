"""The documents on tasks, claims, norms and verdicts agree with the code."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
import yaml
from documents import DOCUMENTS, FENCE, ROOT, without_blocks

from normbench.config.choices import choices
from normbench.config.composition import compose
from normbench.norms import REGISTRY
from normbench.records.query import flat
from normbench.tasks.base import REGISTRY as TASKS
from normbench.verdicts.contrasts import decide
from normbench.verdicts.counting import CensusRule
from normbench.verdicts.design import Says
from normbench.verdicts.registration import read_claim
from normbench.verdicts.verdict import Decision, Headline, Size
from normbench.verdicts.wording import rule_text


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub makes from the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", without_blocks(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_paths_and_links_in_a_document_exist(document: Path) -> None:
    text = without_blocks(document)
    paths = re.findall(r"`((?:normbench|configs|scripts|tests|docs)/[\w./-]+)`", text)
    for path in paths:
        if "NAME" not in path:
            assert (ROOT / path).exists(), path
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", text)
    assert paths or links
    for link in links:
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_table_has_a_head(document: Path) -> None:
    """A row that a merge moved away from its table is a table without a head."""
    for table in re.findall(r"(?:^\|.*\n)+", without_blocks(document), re.MULTILINE):
        _, line, *_ = [*table.splitlines(), "", ""]
        assert re.fullmatch(r"\|(?:[ :]*-+[ :]*\|)+", line), table


def test_links_from_the_readme_lead_to_every_page() -> None:
    visited, queue = set(), [ROOT / "README.md"]
    while queue:
        page = queue.pop()
        if page not in visited and page.suffix == ".md":
            visited.add(page)
            links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
            queue += [(page.parent / link).resolve() for link in links]
    assert set(DOCUMENTS) <= visited


def rows(text: str) -> list[list[str]]:
    """Return the cells of all table rows without backticks; `\\|` is no separator."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    parts = (re.split(r"(?<!\\)\|", line)[1:-1] for line in lines)
    return [[cell.strip().replace("`", "") for cell in part] for part in parts]


def test_the_page_of_a_task_has_its_defaults() -> None:
    for task in TASKS.names():
        page = (ROOT / "docs" / "tasks" / f"{task}.md").read_text()
        config = compose([f"task={task}"])
        values = flat(config)
        options = {f"task.{key}": value for key, value in config.task.options.items()}
        values |= {key: value for key, value in options.items() if value == {}}
        documented = {cells[0]: cells[1] for cells in rows(page) if cells[0] in values}
        assert options.keys() <= documented.keys()
        for key, default in documented.items():
            value = values[key]
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
    for rule in claim.census:
        assert [rule.name, rule_text(rule), rule.part or "context"] in table
    for design_name, design in {**claim.mechanisms, **claim.outcomes}.items():
        data = ", ".join(design.data) or "-"
        counts = [str(len(design.all_cells())), _listed(design.planned_looks())]
        gate = f"{design.gate.metric} < {design.gate.below:g}"
        row = [design_name, data, *counts, _listed(design.rates), gate]
        assert row in table
        for contrast in design.contrasts:
            if contrast.primary:
                metrics = ", ".join([contrast.metric, *contrast.also])
                says = {"not_greater": "not greater"}.get(contrast.says, contrast.says)
                share = contrast.scale == "ratio"
                margin = f"{contrast.margin:.0%}" if share else f"{contrast.margin:g}"
                assert [design_name, contrast.name, metrics, says, margin] in table


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def test_every_task_and_claim_has_a_page_and_every_page_a_task_or_claim() -> None:
    for kind, names in (("task", TASKS.names()), ("claim", choices("claim"))):
        pages = (ROOT / "docs" / f"{kind}s").glob("*.md")
        assert {page.stem for page in pages} == set(names)


def test_the_reference_sorts_norms_by_their_axes() -> None:
    """The page may lack a new norm: `list norms` has all."""
    page = ROOT / "docs" / "reference.md"
    table = page.read_text().partition("| an output depends on |")[2]
    rows = [row.split("|") for row in table.partition("\n\n")[0].splitlines()[2:]]
    norms_of = {
        words.strip(): re.findall(r"`(\w+)`", cell) for _, words, cell, _ in rows
    }
    assert sum(map(len, norms_of.values())) > 20
    for words, norms in norms_of.items():
        for name in norms:
            assert words in dependence(REGISTRY.get(name).axes), name


def dependence(axes: str) -> list[str]:
    """Return the page's words for the inputs that an output depends on."""
    if "all samples" in axes:
        return ["other samples", "other samples, combined with a norm of one sample"]
    _, channels, positions = axes.split(", ")
    if positions == "one position":
        one = channels == "one channel"
        return ["its own input only" if one else "the channels at its position"]
    if channels == "one channel":
        return ["its channel in its sample"]
    return ["a group of channels, or all channels, in its sample"]


def reading_page() -> str:
    return (ROOT / "docs" / "reading-a-verdict.md").read_text()


def test_the_page_on_reading_explains_every_headline_and_statement() -> None:
    table = rows(reading_page())
    headlines = [cells[0].strip("*") for cells in table if cells[0].startswith("**")]
    assert headlines == list(get_args(Headline))
    assert set(get_args(Says)) <= {cells[0] for cells in table}


def test_the_page_on_reading_has_a_census_rule_that_is_one() -> None:
    section = reading_page().split("## Census")[1].split("\n## ")[0]
    ((_, language, text),) = FENCE.findall(section)
    assert language == "yaml"
    (rule,) = yaml.safe_load(text)["census"]
    assert CensusRule(**rule) in read_claim("batch-default").census


def test_the_decisions_on_drawn_intervals_are_right() -> None:
    """Each line has a decision and a plot of 29 characters; the margin has 6."""
    section = reading_page().split("## Direction and size")[1].split("\n## ")[0]
    plots = [text for _, language, text in FENCE.findall(section)]
    seen = set()
    for says, lines in zip(("greater", "equal", "not_greater"), plots, strict=True):
        for line in lines.splitlines():
            plot = line[24:53]
            places = [i - 14 for i, mark in enumerate(plot) if mark in "-o"]
            interval = float(min(places)), float(max(places))
            decision, _, size = decide(says, 6.0, interval, interval, 0.05)
            shown = f"{decision}, {size}" if size else decision
            assert line[:24].strip() == shown, line
            seen |= {decision, size}
            if says == "greater":
                mirrored = -interval[1], -interval[0]
                mirror = decide("less", 6.0, mirrored, mirrored, 0.05)
                assert (mirror.decision, mirror.size) == (decision, size)
    expected = {*get_args(Decision), *get_args(Size), None}
    assert seen == expected - {"not tested"}
