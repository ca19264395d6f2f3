"""All renderers show the same numbers and words of each committed verdict."""

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from verdicts_made import CLAIMS, NAMES, committed

from normbench.config.choices import choices
from normbench.report import words
from normbench.report.dashboard import verdict_table
from normbench.report.figures.verdict import verdict_figures
from normbench.report.page import page
from normbench.report.page.material import gather
from normbench.report.text.verdict import verdict_text
from normbench.verdicts.registration import read_claim
from normbench.verdicts.verdict import ContrastVerdict, Verdict

ROOT = Path(__file__).parents[2]


class Shown(NamedTuple):
    """The texts that one renderer shows of a contrast."""

    name: str
    decision: str
    effect: str
    confidence: str
    low: str
    high: str
    n: str
    p: str


NUMBER = r"([+-][\d.]+)"
NUMBERS = rf"{NUMBER}, (\d+%) \[{NUMBER}, {NUMBER}\], n (\d+), p (.*?)"


def expected(contrast: ContrastVerdict, alpha: float) -> Shown:
    """Return the texts to show: the test that decided, with its interval."""
    against = contrast.decision in {"refuted", "equivalent"}
    adjusted, p = contrast.p_adjusted, contrast.p
    adjusted_against, p_against = contrast.p_against_adjusted, contrast.p_against
    if contrast.decision == "inconclusive" and p is not None and p_against is not None:
        against = (adjusted_against or p_against) < (adjusted or p)
    if against:
        adjusted, p = adjusted_against, p_against
    value = p if adjusted is None else adjusted
    wide = contrast.says in {"greater", "less"} and contrast.decision != "equivalent"
    low, high = contrast.low_margin, contrast.high_margin
    if wide:
        low, high = contrast.low, contrast.high
    marks = " against" * against + " (Holm)" * (adjusted is not None)
    return Shown(
        contrast.name,
        words.HEADLINES["withdrawn" if contrast.withdrawn else contrast.decision],
        f"{contrast.effect:+.4f}",
        f"{100 * (1 - alpha * (1 if wide else 2)):.0f}%",
        f"{low:+.4f}",
        f"{high:+.4f}",
        str(contrast.n),
        f"{value:.2g}{marks}",
    )


def in_the_terminal(verdict: Verdict) -> Iterator[Shown]:
    printed = verdict_text(verdict, 10_000)
    for decision, name, *numbers in re.findall(
        rf"^    (\S.*?) {{2,}}(.*)\n +\S+ {NUMBERS}, margin", printed, re.MULTILINE
    ):
        yield Shown(re.sub(r"\*?( \(exploratory\))?$", "", name), decision, *numbers)


def in_the_figures(verdict: Verdict) -> Iterator[Shown]:
    figures = verdict_figures(verdict, read_claim(verdict.claim))
    for design in verdict.designs:
        (axes,) = figures[f"{design.name}-contrasts"].axes
        for label, contrast in zip(axes.texts, design.contrasts, strict=True):
            line = label.get_text().replace("\N{MINUS SIGN}", "-")
            match = re.fullmatch(rf".*, expected .*?: (.*)\n{NUMBERS}", line)
            assert match, line
            yield Shown(contrast.name, *match.groups())


ROW = re.compile(
    r'<tr>\n<th scope="row">(?P<name>[^\n]*?)(?: <span class="tag">.*?)?'
    r'<div class="small">[^\n]*, expected: .*?</th>\n'
    r'<td><span class="badge [^"]*"><span [^>]*>.</span>(?P<decision>.*?)</span>'
    rf'.*?<td class="n">{NUMBER}<div class="small">(\d+%) '
    rf"\[{NUMBER}, {NUMBER}\]</div></td>\n"
    r'<td class="n">(\d+)</td>\n<td class="n">(.*?)</td>',
    re.DOTALL,
)


@pytest.fixture(scope="module")
def rendered() -> str:
    """The page of all committed verdicts, without HTML entities."""
    text = page.render(gather(CLAIMS / "no runs", CLAIMS), {}, {}).html
    return html.unescape(text).replace("\N{MINUS SIGN}", "-")


def test_every_renderer_shows_the_numbers_that_decided(rendered: str) -> None:
    all_texts = []
    for name in NAMES:
        verdict = committed(name)
        texts = [
            expected(contrast, verdict.alpha)
            for design in verdict.designs
            for contrast in design.contrasts
        ]
        assert list(in_the_terminal(verdict)) == texts, name
        assert list(in_the_figures(verdict)) == texts, name
        all_texts += texts
    assert [Shown(*row.groups()) for row in ROW.finditer(rendered)] == all_texts


def row_of(document: Path, link: str) -> list[str]:
    """Return the cells of the table row whose first cell has the link."""
    (row,) = re.findall(rf"^\|.*\({link}\).*$", document.read_text(), re.MULTILINE)
    return [cell.strip() for cell in row.split("|")[1:-1]]


@pytest.mark.parametrize("name", choices("claim"))
def test_every_renderer_uses_the_same_words_for_decisions(
    name: str, rendered: str
) -> None:
    sentence, *parts = row_of(ROOT / "README.md", rf"docs/claims/{name}\.md")
    sentence = re.sub(r"^\[(.*?)\]\(.*?\)", r"\1", sentence)
    if name not in NAMES:
        assert [sentence, *parts] == [read_claim(name).statement, "", "", ""]
        return
    verdict = committed(name)
    row = words.table_row(verdict)
    assert [sentence, *parts] == list(row)
    results = row_of(ROOT / "results" / "README.md", rf"claims/{name}/verdict\.json")
    assert results[1:4] == parts
    printed = verdict_text(verdict, 10_000).splitlines()
    for title, part in zip(("THEOREM", "MECHANISM", "OUTCOME"), parts, strict=True):
        assert f"{title:<11}{part}" in printed
    assert f"| {' | '.join(row)} |" in verdict_table([verdict])
    article = rendered.split(f'<article class="claim" id="claim-{name}"')[1]
    summary = article.partition('<dl class="parts">')[2].partition("</dl>")[0]
    for part in parts:
        decisions, _, finding = part.partition("; found: ")
        assert finding in summary
        for decision in decisions.split(", "):
            assert decision.rpartition(": ")[2] in summary, (name, decision)
