"""Committed verdicts follow from the records and the yaml of their claims."""

import html
import json
import re
from pathlib import Path

import pytest
from verdicts_made import CLAIMS, NAMES, committed, rich_verdict, some_verdicts

from normbench.claims.check import RECORDS
from normbench.claims.saved import judge_again
from normbench.config.choices import choices
from normbench.records.store import read_compact
from normbench.report import words
from normbench.report.page import page
from normbench.report.page.material import gather
from normbench.report.published import published_line, recalled
from normbench.report.text.claim import claim_text
from normbench.report.text.verdict import verdict_text
from normbench.verdicts.contrasts import decide
from normbench.verdicts.files import as_recorded
from normbench.verdicts.registration import read_claim, registration_hash
from normbench.verdicts.remarks import read_remarks
from normbench.verdicts.verdict import (
    ContrastVerdict,
    Verdict,
)

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
RESULTS = (ROOT / "results" / "README.md").read_text()


def test_a_verdict_is_of_the_registration_and_of_the_records_beside_it() -> None:
    for name in NAMES:
        verdict = committed(name)
        assert verdict.registration == registration_hash(read_claim(name)), name
        assert verdict.budget == "full", name
        records = read_compact(CLAIMS / name / RECORDS)
        assert [record.run_id for record in records] == sorted(verdict.run_ids), name
        remarks = read_remarks(CLAIMS / name / "remarks.yaml")
        assert remarks is None or remarks.registration == verdict.registration, name


def one_line(markdown: str) -> str:
    """The text without line breaks and the marks of a quotation."""
    return " ".join(markdown.replace("\n> ", " ").split())


def test_withdrawn_headlines_are_on_top_of_the_documents() -> None:
    notice = words.withdrawals([committed(name) for name in NAMES])
    for document in (README, RESULTS):
        assert notice in one_line(document)
    if not notice:
        assert "Withdrawn: " not in README + RESULTS


def contrasts_of(verdict: Verdict) -> list[ContrastVerdict]:
    return [c for design in verdict.designs for c in design.contrasts]


def test_the_stored_numbers_give_the_stored_decision_and_its_reason() -> None:
    for verdict in some_verdicts():
        for contrast in contrasts_of(verdict):
            c = contrast
            if c.low is None or c.high is None or "after Holm" in c.because:
                continue
            if c.because.startswith("gate: "):
                continue
            assert c.low_margin is not None and c.high_margin is not None
            at_margin = c.low_margin, c.high_margin
            decided = decide(
                c.says,
                c.margin,
                (c.low, c.high),
                at_margin,
                verdict.alpha,
                repeated=bool(c.looks),
            )
            assert (decided.decision, decided.size) == (c.decision, c.size), c.name
            assert c.because.startswith(decided.because), c.name


def test_remarks_leave_the_record_as_it_is() -> None:
    for name in NAMES:
        recorded = json.loads((CLAIMS / name / "verdict.json").read_text())
        assert json.loads(as_recorded(committed(name))) == recorded


@pytest.mark.usefixtures("no_package_verdicts")
def test_figures_from_memory_are_marked_in_every_view(tmp_path: Path) -> None:
    lines = [line for name in choices("claim") for line in read_claim(name).published]
    claim = read_claim("padding-tokens")
    verdict = rich_verdict().model_copy(update={"published": claim.published})
    for each in recalled():
        (line,) = (line for line in lines if line.startswith(each.line))
        assert published_line(line).endswith(f"[{each.mark}]")
    line = next(line for line in lines if "PowerNorm" in line)
    statements = {each.check: "" for each in claim.theorems}
    material = gather(tmp_path, tmp_path)
    for shown in (
        verdict_text(verdict, 10_000, details=True),
        claim_text(claim, statements, [], 10_000),
        html.unescape(page.render(material, {}, {}).html),
    ):
        assert published_line(line) in shown
        assert "theirs" not in shown
    for document in ROOT.glob("docs/**/*.md"):
        for after in one_line(document.read_text()).split("BN 34.4")[1:]:
            assert "recalled from memory" in after[:80], document


def test_no_document_and_no_output_uses_the_old_words() -> None:
    old = re.compile(r"\btheirs\b|said to be|\.8 points|middle is better than")
    documents = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("results/*.md"),
    ]
    for document in documents:
        if document.name != "CHANGELOG.md":
            assert not old.search(document.read_text()), document
    verdicts = re.compile(r"\b(equivalent|supported|refuted|inconclusive)\b")
    for verdict in some_verdicts():
        # What others wrote keeps their words.
        own = verdict.model_copy(update={"published": []})
        printed = verdict_text(own, 200, details=True)
        assert not verdicts.search(printed) and not old.search(printed)
    assert not verdicts.search(README + RESULTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_verdict_follows_from_its_records(name: str) -> None:
    new, differences = judge_again(read_claim(name), CLAIMS / name, "again")
    assert differences == []
    assert new.run_ids == committed(name).run_ids
