"""Committed verdicts follow from the records and the yaml of their claims."""

import html
import json
import re
from functools import cache
from pathlib import Path

import pytest
from verdicts_made import CLAIMS, NAMES, committed, with_defaults

from normbench.claims.check import RECORDS
from normbench.claims.saved import judge_again
from normbench.config.choices import choices
from normbench.records.store import read_compact
from normbench.report import words
from normbench.report.dashboard import verdict_table
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


@cache
def rendered_page() -> str:
    """The report on all committed verdicts."""
    return page.render(gather(CLAIMS / "no runs", CLAIMS), {}, {}).html


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


def row_of(document: str, link: str) -> list[str]:
    """The cells of the row of a table whose first cell has the link."""
    (row,) = re.findall(rf"^\|.*\({link}\).*$", document, re.MULTILINE)
    return [cell.strip() for cell in row.split("|")[1:-1]]


def test_the_notice_is_on_top_of_the_documents() -> None:
    verdicts = [committed(name) for name in NAMES]
    notice = words.withdrawals(verdicts)
    for document in (README, RESULTS):
        before = one_line(document).partition("| [batch-default")[0]
        assert notice in before.partition("| [BatchNorm depends")[0]
    for verdict in verdicts:
        page = one_line((ROOT / "docs" / "claims" / f"{verdict.claim}.md").read_text())
        assert words.withdrawals([verdict]) in page
        for finding in verdict.findings.values():
            assert f"Found: {finding}" in page
    if not notice:
        assert "Withdrawn: " not in README + RESULTS


def test_what_the_first_choice_of_rates_decided_is_withdrawn() -> None:
    shown = {
        (name, design.name): design.headline
        for name in NAMES
        for design in committed(name).designs
    }
    withdrawn = {key for key, headline in shown.items() if headline == "withdrawn"}
    assert withdrawn == {
        ("group-compromise", "between"),
        ("group-compromise", "adjacency"),
        ("group-compromise", "real_adjacency"),
        ("group-small-batch", "norm_batch"),
        ("layernorm-axes", "images"),
    }
    assert committed("group-small-batch").outcomes[0].crossovers[0].withdrawn
    assert shown["group-small-batch", "joint"] == "supported"
    assert committed("group-compromise").shown_mechanism == "equivalent"


def test_every_view_shows_the_finding_beside_the_statement() -> None:
    claim = read_claim("instance-classification")
    verdict = committed(claim.name)
    finding = verdict.findings["statement"]
    for where, shown in {
        "README": README,
        "terminal": verdict_text(verdict, 400),
        "registration": claim_text(
            claim, {each.check: "" for each in claim.theorems}, [], 400, finding
        ),
        "dashboard": verdict_table([verdict]),
        "page": rendered_page(),
        "claim page": (ROOT / "docs" / "claims" / f"{claim.name}.md").read_text(),
    }.items():
        parts = one_line(shown).split(claim.statement)
        assert len(parts) > 1, where
        for after in parts[1:]:
            assert "texture is kept" in after[:120], where


def contrasts_of(verdict: Verdict) -> list[ContrastVerdict]:
    return [c for design in verdict.designs for c in design.contrasts]


def test_the_p_of_a_contrast_that_fails_only_after_holm_is_the_one_it_names() -> None:
    contrast = committed("group-small-batch").outcomes[0].contrasts[1]
    assert contrast.because.endswith("primary contrasts (p 0.069)")
    assert contrast.p_shown == "0.069 against (Holm)"


def test_intervals_in_the_results_are_those_that_are_shown() -> None:
    for name in NAMES:
        shown = [c.interval for c in contrasts_of(committed(name))]
        cells = " ".join(row_of(RESULTS, rf"claims/{name}/verdict\.json"))
        printed = re.findall(r"\[(?:90 %: )?(-?\.\d+|-?\d\.\d+), (-?\d?\.\d+)\]", cells)
        for low, high in printed:
            digits = len(low.partition(".")[2])
            wanted = [f"{float(end):.{digits}f}" for end in (low, high)]
            rounded = [
                [f"{end:.{digits}f}" for end in ends]
                for interval in shown
                if interval is not None
                for ends in (interval[:2], (-interval.high, -interval.low))
            ]
            assert wanted in rounded, (name, low, high)


def test_the_stored_numbers_give_the_stored_decision_and_its_reason() -> None:
    for name in NAMES:
        verdict = committed(name)
        for contrast in contrasts_of(verdict):
            c = contrast
            if c.low is None or c.high is None or "after Holm" in c.because:
                continue
            assert c.low_margin is not None and c.high_margin is not None
            at_margin = c.low_margin, c.high_margin
            decided = decide(
                c.says, c.margin, (c.low, c.high), at_margin, verdict.alpha
            )
            assert decided == (contrast.decision, contrast.because), contrast.name


def test_remarks_leave_the_record_as_it_is() -> None:
    for name in NAMES:
        recorded = json.loads((CLAIMS / name / "verdict.json").read_text())
        written = json.loads(as_recorded(committed(name)))
        assert written == with_defaults(recorded)


def test_figures_from_memory_are_marked_in_every_view() -> None:
    lines = [line for name in choices("claim") for line in read_claim(name).published]
    claim, verdict = read_claim("padding-tokens"), committed("padding-tokens")
    for each in recalled():
        (line,) = (line for line in lines if line.startswith(each.line))
        assert published_line(line).endswith(f"[{each.mark}]")
    line = next(line for line in lines if "PowerNorm" in line)
    statements = {each.check: "" for each in claim.theorems}
    for shown in (
        verdict_text(verdict, 10_000),
        claim_text(claim, statements, [], 10_000),
        html.unescape(rendered_page()),
    ):
        assert published_line(line) in shown
        assert "theirs" not in shown
    for document in ROOT.glob("docs/**/*.md"):
        for after in one_line(document.read_text()).split("BN 34.4")[1:]:
            assert "recalled from memory" in after[:80], document


def test_no_document_and_no_output_uses_the_old_words() -> None:
    old = re.compile(
        r"\btheirs\b|said to be|\.8 points|middle is better than|are alike\."
    )
    documents = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("results/*.md"),
    ]
    for document in documents:
        if document.name != "CHANGELOG.md":
            assert not old.search(document.read_text()), document
    for name in NAMES:
        printed = verdict_text(committed(name), 200)
        assert not re.search(r"\bequivalent\b", printed) and not old.search(printed)
    table = README.partition("## One real result")[0]
    assert not re.search(r"\bequivalent\b", table + RESULTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_verdict_follows_from_its_records(name: str) -> None:
    new, differences = judge_again(read_claim(name), CLAIMS / name, "again")
    assert differences == []
    assert new.run_ids == committed(name).run_ids
