"""docs/reading-a-verdict.md compares the checks that were repeated with other seeds."""

from collections.abc import Iterator
from itertools import pairwise

from documents import ROOT

from normbench.report import words
from normbench.verdicts.files import read_verdict
from normbench.verdicts.summaries import CellSummary
from normbench.verdicts.verdict import Verdict
from normbench.verdicts.wording import estimate_text

CLAIMS = ROOT / "results" / "claims"


def repeated() -> Iterator[tuple[Verdict, Verdict]]:
    """Yield the verdict of each check that was repeated, and that of its repetition."""
    for path in sorted(CLAIMS.glob("*/verdict.seeds-1000.json")):
        first, again = read_verdict(path.with_name("verdict.json")), read_verdict(path)
        assert first is not None and again is not None
        yield first, again


def best_rate(cell: CellSummary) -> float:
    rates = [rate for rate in cell.rates if rate.validation is not None]
    return min(rates, key=lambda rate: rate.validation or 0, default=cell.rates[0]).lr


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def section() -> str:
    page = (ROOT / "docs" / "reading-a-verdict.md").read_text(encoding="utf-8")
    return page.split("\n## Repeated with other seeds\n")[1].split("\n## ")[0]


def test_the_page_has_both_answers_of_each_repeated_check() -> None:
    headlines, contrasts, changed, rates = [], [], [], []
    same_headlines, decisions = [], []
    for first, again in repeated():
        assert first.registration == again.registration
        assert not set(first.run_ids) & set(again.run_ids)
        for parts in zip(first.parts, again.parts, strict=True):
            both = [words.headline(part) for part in parts]
            headlines.append(row(first.claim, parts[0].name, *both))
            same_headlines.append(both[0] == both[1])
        for design, other in zip(first.designs, again.designs, strict=True):
            for pair in zip(design.contrasts, other.contrasts, strict=True):
                decisions.append(pair[0].decision == pair[1].decision)
                if not decisions[-1]:
                    both = [words.decision(each) for each in pair]
                    changed.append(row(design.name, pair[0].name, *both))
                if pair[0].primary:
                    both = [estimate_text(each, interval=True) for each in pair]
                    contrasts.append(row(design.name, pair[0].name, *both))
            for cells in zip(design.cells, other.cells, strict=True):
                lrs = [best_rate(cell) for cell in cells]
                if lrs[0] != lrs[1]:
                    rates.append(row(design.name, cells[0].cell, *lrs))
    page = section()
    words_of_page = " ".join(page.split())
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    heads = [head for head, line in pairwise(page.splitlines()) if "|---" in line]
    expected = [*headlines, *contrasts, *changed, *rates]
    assert [line for line in rows if line not in heads] == expected, "\n".join(expected)
    counts = f"{sum(same_headlines)} of {len(same_headlines)} headlines"
    assert counts in words_of_page
    assert f"{sum(decisions)} of {len(decisions)} contrasts" in words_of_page, decisions
