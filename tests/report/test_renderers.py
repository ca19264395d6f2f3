"""All renderers show the same numbers and words of each verdict."""

import html
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from verdicts_made import CLAIMS, some_verdicts

from normbench.report import words
from normbench.report.dashboard import verdict_table
from normbench.report.figures.verdict import verdict_figures
from normbench.report.page import page
from normbench.report.page.material import ClaimEntry, gather
from normbench.report.text.claim import claim_text
from normbench.report.text.verdict import plot, verdict_text
from normbench.verdicts.registration import read_claim
from normbench.verdicts.verdict import ContrastVerdict, DesignVerdict, Verdict
from normbench.verdicts.wording import (
    CHANGES,
    SHARES,
    census_text,
    contradiction_text,
    rule_text,
)

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


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


EFFECT = r"([+-][\d.]+(?: %| points)?)"
END = r"([+-][\d.]+)"
CONFIDENCE = r"((?:repeated )?\d+%)"
NUMBERS = rf"{EFFECT}, {CONFIDENCE} \[{END}, {END}\], n (\d+), p (.*?)"


def in_units(contrast: ContrastVerdict, value: float | None) -> tuple[str, str]:
    """Return an effect or the end of an interval, and its unit."""
    assert value is not None
    if contrast.scale == "ratio":
        return f"{100 * (math.exp(value) - 1):+.1f}", " %"
    is_share = contrast.metric.partition("/")[2] in {*SHARES, *CHANGES}
    if contrast.scale == "difference" and is_share:
        return f"{100 * value:+.2f}", " points"
    return f"{value:+.4f}", ""


def expected(contrast: ContrastVerdict, alpha: float) -> Shown:
    """Return the texts to show: the test that decided, with its interval."""
    tests = {
        "confirmed": (contrast.p, contrast.p_adjusted),
        "contradicted": (contrast.p_against, contrast.p_against_adjusted),
        "no relevant difference": (contrast.p_within, contrast.p_within_adjusted),
    }
    values = {
        decision: p if adjusted is None else adjusted
        for decision, (p, adjusted) in tests.items()
        if p is not None
    }
    decided = contrast.decision
    if decided not in values:  # of an undecided contrast, the closest test
        decided = min(values, key=lambda decision: values[decision])
    value, against = values[decided], decided != "confirmed"
    adjusted = contrast.p_adjusted
    none = contrast.decision == "no relevant difference"
    wide = contrast.says in {"greater", "less"} and not none
    low, high = contrast.low_margin, contrast.high_margin
    if wide:
        low, high = contrast.low, contrast.high
    marks = " against" * against + " (Holm)" * (adjusted is not None)
    return Shown(
        contrast.name,
        contrast.decision + (f", {contrast.size}" if contrast.size else ""),
        "".join(in_units(contrast, contrast.effect)),
        "repeated " * bool(contrast.looks) + f"{1 - alpha * (1 if wide else 2):.0%}",
        in_units(contrast, low)[0],
        in_units(contrast, high)[0],
        str(contrast.n),
        f"{value:.2g}{marks}",
    )


def with_effect(design: DesignVerdict) -> list[ContrastVerdict]:
    return [each for each in design.contrasts if each.effect is not None]


def in_the_terminal(verdict: Verdict) -> Iterator[Shown]:
    printed = verdict_text(verdict, 10_000, details=True)
    for decision, name, *numbers in re.findall(
        rf"^    (\S.*?) {{2,}}(.*)\n +\S+ {NUMBERS}, margin", printed, re.MULTILINE
    ):
        yield Shown(re.sub(r"\*?( \(exploratory\))?$", "", name), decision, *numbers)


def in_the_figures(verdict: Verdict) -> Iterator[Shown]:
    figures = verdict_figures(verdict, read_claim(verdict.claim))
    for design in verdict.designs:
        shown: dict[str, Shown] = {}
        for axes in figures[f"{design.name}-contrasts"].axes:
            # Other texts, on the directions, have no label.
            texts = [t for t in axes.texts if "expected" in str(t.get_label())]
            for text, name in zip(texts, axes.get_yticklabels(), strict=True):
                line = str(text.get_label()).replace("\N{MINUS SIGN}", "-")
                match = re.fullmatch(rf".*, expected .*?: (.*)\n{NUMBERS}", line)
                assert match, line
                name_shown = " ".join(name.get_text().split())
                shown[name_shown] = Shown(name_shown, *match.groups())
        yield from (shown[contrast.name] for contrast in with_effect(design))


ROW = re.compile(
    r'<tr>\n<th scope="row">(?P<name>[^\n]*?)(?: <span class="tag">.*?)?'
    r'<div class="small">[^\n]*, expected: .*?</th>\n'
    r'<td><span class="badge [^"]*"><span [^>]*>.</span>(?P<decision>.*?)</span>'
    r'(?: <span class="tag">(?P<size>.*?)</span>)?<div'
    rf'(?:(?!</tr>).)*?<td class="n">{EFFECT}<div class="small">{CONFIDENCE} '
    rf"\[{END}, {END}\]</div></td>\n"
    r'<td class="n">(\d+)</td>\n<td class="n">(.*?)</td>',
    re.DOTALL,
)


def in_the_page(html: str) -> Iterator[Shown]:
    for row in ROW.finditer(html):
        name, decision, size, *numbers = row.groups()
        yield Shown(name, f"{decision}, {size}" if size else decision, *numbers)


@cache
def verdicts() -> list[Verdict]:
    """Return all verdicts; the last one has a finding and a withdrawn headline."""
    *others, rich = some_verdicts()
    first, second, third = rich.parts
    caveat = "the sign is the opposite"
    parts = [
        first.model_copy(update={"caveats": [caveat]}),
        second.model_copy(update={"finding": "It is lower by 3 %."}),
        third.model_copy(update={"withdrawn": "The data were mixed up."}),
    ]
    return [*others, rich.model_copy(update={"parts": parts})]


@pytest.fixture(scope="module")
def rendered() -> str:
    """The page of all verdicts, without HTML entities."""
    entries = [ClaimEntry(verdict.claim, None, verdict) for verdict in verdicts()]
    material = replace(gather(CLAIMS / "no runs", CLAIMS), claims=entries)
    text = page.render(material, {}, {}).html
    return html.unescape(text).replace("\N{MINUS SIGN}", "-")


def test_every_renderer_shows_the_numbers_that_decided(rendered: str) -> None:
    all_texts = []
    for verdict in verdicts():
        texts = [
            expected(contrast, verdict.alpha)
            for design in verdict.designs
            for contrast in with_effect(design)
        ]
        assert list(in_the_terminal(verdict)) == texts, verdict.claim
        assert list(in_the_figures(verdict)) == texts, verdict.claim
        all_texts += texts
    assert list(in_the_page(rendered)) == all_texts
    decisions = {text.decision for text in all_texts}
    assert {"confirmed, clear", "confirmed, small", "contradicted, clear"} <= decisions
    assert {"confirmed", "no relevant difference", "not decided"} <= decisions


def test_every_renderer_shows_headlines_findings_and_scopes(rendered: str) -> None:
    articles = re.split('<article class="claim"', rendered)[1:]
    for verdict, article in zip(verdicts(), articles, strict=True):
        printed = verdict_text(verdict, 10_000).splitlines()
        table = verdict_table([verdict])
        shown_parts = re.split('<div class="part">', article)[1:]
        for part, shown in zip(verdict.parts, shown_parts, strict=True):
            lines = words.findings(part, verdict)
            limits = [part.withdrawn] if part.withdrawn else part.caveats
            headline = part.shown + (f" ({'; '.join(limits)})" if limits else "")
            start = printed.index(
                headline.replace(part.shown, part.shown.upper(), 1)
                + f": {part.sentence}"
            )
            dash = "" if part.finding else "- "
            assert printed[start + 1 : start + 2 + len(lines)] == [
                *(f"  {dash}{line}" for line in lines),
                f"  for {part.scope}",
            ]
            sentences = " ".join(f"{line.removesuffix('.')}." for line in lines)
            row = [verdict.claim, headline, part.sentence, sentences, part.scope]
            assert f"| {' | '.join(row)} |" in table
            for text in (f">{part.shown}</span>", part.sentence, *limits, *lines):
                assert text in shown.partition("\n</div>")[0], text
        # Nothing else is printed without --details.
        assert not any("THEOREM" in line for line in printed)
        # The registered scope of a part may name the rate.
        scopes = {f"  for {part.scope}" for part in verdict.parts}
        assert not any("lr " in line for line in {*printed} - scopes)


def test_contrasts_of_all_scales_have_an_axis_in_margins() -> None:
    verdict = verdicts()[-1]
    (mechanism,), (outcome,) = verdict.mechanisms, verdict.outcomes
    two = mechanism.contrasts[0], outcome.contrasts[0]
    assert [contrast.scale for contrast in two] == ["ratio", "difference"]

    def with_ends(low: float, effect: float, high: float) -> DesignVerdict:
        """Return a design with both contrasts; the numbers are in margins."""
        ends = {"low": low, "effect": effect, "high": high}
        decided = {"says": "less", "decision": "confirmed", "size": "clear"}
        contrasts = [
            contrast.model_copy(
                update={name: x * contrast.margin for name, x in ends.items()} | decided
            )
            for contrast in two
        ]
        return mechanism.model_copy(update={"contrasts": contrasts})

    for design, limit, drawn, end in (
        (with_ends(-2, -1.5, -1), 2.1, " -----o---(         |         )", "-"),
        (with_ends(-30, -25, -5), 10, "<----------       ( | )", "<"),
    ):
        assert words.axis_limit(design) == pytest.approx(limit)
        lines = [plot(contrast, limit) for contrast in design.contrasts]
        assert lines == [drawn, drawn], lines
        one, other = (page.bar(contrast, limit) for contrast in design.contrasts)
        assert one == pytest.approx(other)
        assert (one.effect == 0) == (end == "<")


def test_only_negative_numbers_have_minus_signs() -> None:
    minus = "\N{MINUS SIGN}"
    text = "how-digits, 14x14-pixels at lr 1e-05: -1.5 [-2, -.5], +1 % or -1 %"
    assert page.with_minus_signs(text) == (
        f"how-digits, 14x14-pixels at lr 1e-05: {minus}1.5 [{minus}2, {minus}.5], "
        f"+1 % or {minus}1 %"
    )


def test_without_a_written_finding_each_tested_statement_has_a_line() -> None:
    verdict = verdicts()[-1]
    first, second, third = verdict.parts
    lines = words.findings(first, verdict)
    assert lines[0] == "theorem, confirmed: It is 0."
    assert lines[1] == (
        "census, confirmed: more than 10 % of the models of torchvision have BatchNorm "
        "as their default norm: 1 of 3 models of torchvision 0.29.1, 33.3 % "
        "[25 %, 50 % with what is tied or could not be counted]"
    )
    assert [line.partition(":")[0] for line in lines[2:]] == [
        f"{bearing.design}, {bearing.name}" for bearing in first.bearings[2:]
    ]
    assert re.search(
        r": confirmed, [+-][\d.]+ points \[.*\]; margin 2 points$", lines[4]
    )
    assert words.findings(second, verdict) == ["It is lower by 3 %."]
    assert words.findings(third, verdict) == []
    smoke = [
        design.model_copy(
            update={
                "contrasts": [
                    c.model_copy(update={"decision": "not tested", "size": None})
                    for c in design.contrasts
                ]
            }
        )
        for design in verdict.outcomes
    ]
    untested = verdict.model_copy(update={"outcomes": smoke})
    assert words.findings(first, untested) == lines[:2]


def test_every_view_with_details_shows_each_census_rule_and_its_numbers(
    rendered: str,
) -> None:
    verdict = verdicts()[-1]
    printed = " ".join(verdict_text(verdict, 100, details=True).split())
    shown = " ".join(rendered.split())
    for rule in verdict.census:
        for text in (rule_text(rule), census_text(rule), words.census_counts(rule)):
            assert text in printed and text in shown, rule.name
        assert f"{rule.decision} {words.census_line(rule)}" in printed
        assert rule.reason in shown and rule.name in shown
    assert "1 model could not be counted: alexnet (no kernel)" in printed
    assert "timm is not installed" in printed


@pytest.mark.parametrize("name", ["batch-default", "layernorm-axes"])
def test_a_registered_rule_says_what_would_contradict_it(name: str) -> None:
    claim = read_claim(name)
    statements = {theorem.check: "" for theorem in claim.theorems}
    text = claim_text(claim, statements, [], 10_000)
    assert claim.census
    for rule in claim.census:
        (line,) = (each for each in text.splitlines() if f"- {rule.name}: " in each)
        assert rule_text(rule) in line and rule.reason in line
        assert f"contradicted by {contradiction_text(rule)}" in line
        if rule.part is not None:
            assert f"bears {rule.bears} {rule.part}" in line
