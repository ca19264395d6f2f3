"""The titles and subtitles of the figures of a verdict: its findings, and how to read.

The words of headlines and effects are those of `normbench.report.words` and
`normbench.verdicts.wording`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from normbench.report import words
from normbench.report.figures.names import data_words, plain
from normbench.report.figures.series import count_range
from normbench.report.figures.units import metric_words
from normbench.verdicts.design import Design
from normbench.verdicts.summaries import CellSummary
from normbench.verdicts.verdict import (
    ContrastVerdict,
    Decision,
    DesignVerdict,
    PartVerdict,
    Verdict,
)
from normbench.verdicts.wording import answer, estimate_text, margin_text

MAX_SENTENCES = 2
"""With more parts, a title has their names instead of their sentences."""
MARGINS = "within the margin"
NO_BREAK = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Head:
    """What the figures of a design say of the question and the answer.

    `name`, `title` and `lead` are those of `layout.Texts`, `scope` says what the runs
    stand for, and `source` where the numbers are. `answers` has the answer to each
    contrast of a comparison by name; that of a claim has none, but expectations.
    """

    name: str
    title: str
    lead: str
    scope: str
    source: str
    answers: Mapping[str, str] = field(default_factory=dict)

    def answer(self, contrast: ContrastVerdict) -> str:
        """Return the metric of a contrast, and what was decided."""
        metric = metric_words(contrast.metric)
        if self.answers:
            return f"{self.answers[contrast.name]} ({metric})"
        expected = words.SHORT_EXPECTATIONS[contrast.says]
        return f"{metric}, expected {expected}: {words.decision(contrast)}"

    def decision(self, contrast: ContrastVerdict) -> Decision:
        """Return the decision to draw; a comparison finds either direction."""
        if self.answers and contrast.decision == "contradicted":
            return "confirmed"
        return contrast.decision


def claim_head(
    design: DesignVerdict, registered: Design | None, verdict: Verdict
) -> Head:
    """Return what the figures of a claim say."""
    return Head(
        name=f"{verdict.claim}, {design.name}",
        title=_finding(design, verdict),
        lead=_effects(design, registered, verdict),
        scope=_scope(design, verdict),
        source=f"Claim {verdict.claim}, design {design.name}",
    )


def _finding(design: DesignVerdict, verdict: Verdict) -> str:
    """Return the headline of each part that the design bears on.

    A design without a part has its question as the title, and so has one with many
    parts: their names and headlines follow.
    """
    parts = _parts(design, verdict)
    if len(parts) > MAX_SENTENCES:
        by_headline: dict[str, list[str]] = {}
        for part in parts:
            by_headline.setdefault(words.headline(part), []).append(plain(part.name))
        answers = (
            f"{_capital(headline)}: {', '.join(names)}."
            for headline, names in by_headline.items()
        )
        return f"{design.question}\n{' '.join(answers)}"
    sentences = (f"{_capital(words.headline(part))}: {part.sentence}" for part in parts)
    return "\n".join(sentences) or design.question


def _effects(design: DesignVerdict, registered: Design | None, verdict: Verdict) -> str:
    """Return the first effect of each part of the title, with its interval.

    Without parts, that of the first contrast.
    """
    parts = _parts(design, verdict)
    where = data_words(registered, design.data)
    names: list[str | None] = [part.name for part in parts]
    lines = []
    for name in names or [None]:
        for contrast in design.contrasts:
            if contrast.part == name and contrast.effect is not None:
                lines.append(_effect(contrast))
                break
    if len(parts) > MAX_SENTENCES:
        lines = [text] if (text := _in_short(parts, design)) else []
    on = f"{_capital(where)}: " if where else ""
    return "\n".join(f"{on}{unbroken(line)}" for line in lines)


def _in_short(parts: Sequence[PartVerdict], design: DesignVerdict) -> str:
    """Return the first effect of each part without its interval, all of one metric."""
    shown: dict[str | None, ContrastVerdict] = {}
    for contrast in design.contrasts:
        if (
            contrast.part in {part.name for part in parts}
            and contrast.effect is not None
        ):
            shown.setdefault(contrast.part, contrast)
    metrics = {contrast.metric for contrast in shown.values()}
    if len(metrics) != 1:
        return ""
    texts = (
        f"{contrast.name} {estimate_text(contrast, interval=False)}"
        for contrast in shown.values()
    )
    return with_minus(f"{metric_words(*metrics)}, {'; '.join(texts)}")


def _scope(design: DesignVerdict, verdict: Verdict) -> str:
    """Return what the runs stand for: the scope that all parts of the title share."""
    scopes = [part.scope.split("; ") for part in _parts(design, verdict)]
    shared = [
        text
        for text in (scopes[0] if scopes else [])
        if all(text in scope for scope in scopes)
    ]
    return f"Scope: {'; '.join(shared)}" if shared else ""


def cells_legend(cells: Sequence[CellSummary], alpha: float, *, seeds: bool) -> str:
    """Return what marks and lines in a figure of cells mean."""
    with_runs = [cell for cell in cells if cell.n]
    counts = [cell.n for cell in with_runs]
    if not counts or max(counts) < 2:
        return "One seed each, so there is no interval"
    dots = ", single seeds as dots" if seeds else ""
    return (
        f"Mean over {count_range(counts)} seeds with its {1 - alpha:.0%} "
        f"interval (Student's t){dots}, at {_rates(with_runs)}"
    )


def _rates(cells: Sequence[CellSummary]) -> str:
    """Return which learning rates cells with runs have."""
    if any(len(cell.rates) > 1 for cell in cells):
        return "the learning rate that validation chose"
    if all(cell.frozen for cell in cells):
        return "the learning rate that a full check chose"
    rates = {cell.rates[0].lr for cell in cells}
    if len(rates) == 1 and not any(cell.frozen for cell in cells):
        return f"lr {rates.pop():g}, not tuned"
    frozen = sum(cell.frozen for cell in cells)
    return (
        "a learning rate that is not tuned"
        + f" (that of a full check in {frozen} of {len(cells)} cells)" * bool(frozen)
    )


def contrasts_legend(
    contrasts: Sequence[ContrastVerdict], alpha: float, head: Head
) -> str:
    """Return what the marks and lines of a figure of contrasts mean."""
    seeds = count_range([contrast.n for contrast in contrasts])
    looks = any(contrast.looks for contrast in contrasts)
    repeated = " (repeated: valid for all looks together)" if looks else ""
    margins = {margin_text(contrast) for contrast in contrasts}
    margin = f"within the margin of {margins.pop()}" if len(margins) == 1 else MARGINS
    return with_minus(
        f"Effect over {seeds} paired seeds with its {1 - alpha:.0%} interval (thin: "
        f"the direction) and {1 - 2 * alpha:.0%} interval (thick: against the margin)"
        f"{repeated}; ticks are seeds. Shaded: {margin}."
        + ("" if head.answers else " Bold and filled: bears on a part of the claim.")
    )


def _parts(design: DesignVerdict, verdict: Verdict) -> list[PartVerdict]:
    return [
        part
        for part in verdict.parts
        if any(bearing.design == design.name for bearing in part.bearings)
    ]


def _effect(contrast: ContrastVerdict) -> str:
    """Return a contrast, its metric and its number."""
    number = (
        answer(contrast).partition(";")[0]
        if contrast.size
        else estimate_text(contrast, interval=True)
    )
    which = metric_words(contrast.metric)
    return with_minus(f"{contrast.name}: {which} {number}, {contrast.decision}")


def unbroken(numbers: str) -> str:
    """Return formatted numbers with no-break spaces within each number."""
    within = re.sub(r"\[[^]]*\]", lambda ends: ends[0].replace(" ", NO_BREAK), numbers)
    return re.sub(r"(?<=\b[np]) |(?<=\d) (?=%|points|against)", NO_BREAK, within)


def with_minus(text: str) -> str:
    """Return `text` with minus signs in numbers after a space or a bracket."""
    return re.sub(r"(?<=[ [])-(?=[\d.])", "\N{MINUS SIGN}", text)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
