"""The result of a race as text for a terminal: the arms, then the answer."""

from collections.abc import Iterator

from normbench.report import words
from normbench.report.text.answer import Answer, Tried, fit_caveat, rates_caveat
from normbench.report.text.paragraph import paragraph
from normbench.verdicts.ranking import (
    FromBest,
    Place,
    ProvisionalArm,
    RankedArm,
    Ranking,
    Spent,
    TunedArm,
)
from normbench.verdicts.seeds import FULL_TUNING_SEEDS
from normbench.verdicts.wording import (
    difference_margin_text,
    difference_text,
    listed,
    mean_text,
)

PLACES: dict[Place, str] = {
    "best": "best",
    "equal": "as good",
    "open": "open",
    "worse": "worse",
}
"""The words for the places of arms."""
MEAN_WIDTH = 24
"""Characters of a mean with its interval."""
DIFFERENCE_WIDTH = 27
"""Characters of a difference with its interval."""
P_WIDTH = 9
"""Characters of a p value."""


def ranking_text(ranking: Ranking, width: int = 80) -> str:
    """Return the ranking as lines of at most `width` characters; the answer last."""
    return "\n".join(_lines(ranking, width))


def _lines(ranking: Ranking, width: int) -> Iterator[str]:
    for caveat in ranking.caveats:
        yield paragraph("note: ", caveat, width)
    if ranking.caveats:
        yield ""
    if ranking.arms:
        yield from _table(ranking, width)
    elif ranking.provisional:
        yield from _provisional(ranking, width)
    else:
        for arm in ranking.tuning:
            yield from _tuned(arm, ranking.validation, width)
    for left_out in ranking.left_out:
        yield paragraph(f"-  {left_out.arm}: ", left_out.reason, width)
    if ranking.arms:
        yield ""
        yield paragraph("", _intervals(ranking), width)
    yield ""
    for spent in ranking.spent:
        yield paragraph(f"{spent.phase + ':':<9}", _spent(spent), width)
    if further := _further(ranking):
        yield paragraph(f"{'further:':<9}", further, width)
    yield f"{'command:':<9}{ranking.command}"
    yield ""
    yield paragraph("", ranking_answer(ranking).text, width)


def ranking_rows(ranking: Ranking) -> Iterator[dict[str, str]]:
    """Yield the numbers of each arm by column, for a table; then the arms left out.

    Before the first look, the arms have provisional means.
    """
    scaled = any(arm.scaled for arm in (*ranking.arms, *ranking.provisional))
    rates = ("lr", "peak_lr") if scaled else ("lr",)
    gate = "" if ranking.gate in ("", ranking.metric) else ranking.gate
    fits = (words.metric_words(gate),) if gate else ()
    numbers = (ranking.metric, *fits, "minus the best", "p", "seeds")
    columns = ("arm", *rates, *numbers, "result")
    for arm in ranking.arms:
        cells = [arm.arm, *_rate_cells(arm, scaled)]
        cells.append(words.estimate(arm.mean, arm.low, arm.high))
        if gate:
            cells.append(
                "-" if arm.gate_mean is None else mean_text(arm.gate_mean, gate)
            )
        if pair := arm.from_best:
            cells += [words.estimate(pair.difference, pair.low, pair.high, sign="+")]
            cells += [f"{pair.p:.2g}"]
        else:
            cells += ["-", "-"]
        cells += [str(arm.n), PLACES[arm.place]]
        yield dict(zip(columns, cells, strict=True))
    for early in ranking.provisional:
        cells = [early.arm, *_rate_cells(early, scaled)]
        cells += [_mean(early, ranking), *("-" for _ in fits)]
        cells += ["-", "-", str(early.n), "provisional"]
        yield dict(zip(columns, cells, strict=True))
    for out in ranking.left_out:
        cells = [out.arm, *("-",) * len((*rates, *numbers)), out.reason]
        yield dict(zip(columns, cells, strict=True))


def _rate_cells(arm: RankedArm | ProvisionalArm, scaled: bool) -> list[str]:
    if not scaled:
        return [f"{arm.lr:g}"]
    return [f"{arm.lr:g}", "-" if arm.peak_lr is None else f"{arm.peak_lr:.3g}"]


def _table(ranking: Ranking, width: int) -> Iterator[str]:
    """Yield two lines for each arm: its name, and its numbers."""
    headings = (
        f"{ranking.metric:<{MEAN_WIDTH}}",
        f"{'minus the best':<{DIFFERENCE_WIDTH}}",
        f"{'p':<{P_WIDTH}}",
    )
    yield f"   {''.join(headings)}".rstrip()
    for place, arm in enumerate(ranking.arms, start=1):
        facts = f"({_rate(arm)}, {arm.n} seeds{_fit(arm, ranking)})"
        yield paragraph(f"{place:<3}", f"{arm.arm} {facts}", width)
        yield _numbers(arm).rstrip()


def _provisional(ranking: Ranking, width: int) -> Iterator[str]:
    """Yield the means of the arms before the first look."""
    n = ranking.provisional[0].n
    needed = f"a ranking needs {ranking.looks[0]} seeds"
    seeds = f"{n} test seed{'s' if n > 1 else ''}"
    yield paragraph("", f"provisional {ranking.metric} over {seeds}; {needed}:", width)
    for arm in ranking.provisional:
        text = f"{_mean(arm, ranking)} ({_rate(arm)})"
        yield paragraph(f"-  {arm.arm}: ", text, width)


def _mean(arm: ProvisionalArm, ranking: Ranking) -> str:
    if arm.mean is None:
        return f"no finite {ranking.metric}"
    return mean_text(arm.mean, ranking.metric)


def _numbers(arm: RankedArm) -> str:
    mean = words.estimate(arm.mean, arm.low, arm.high)
    text = f"   {mean:<{MEAN_WIDTH}}"
    if pair := arm.from_best:
        difference = words.estimate(pair.difference, pair.low, pair.high, sign="+")
        text += f"{difference:<{DIFFERENCE_WIDTH}}{pair.p:<{P_WIDTH}.2g}"
    else:
        text += " " * (DIFFERENCE_WIDTH + P_WIDTH)
    return text + PLACES[arm.place]


def _fit(arm: RankedArm, ranking: Ranking) -> str:
    """Return the training metric of an arm, such as ", train error 2.10 %", or ""."""
    if arm.gate_mean is None or ranking.gate in ("", ranking.metric):
        return ""
    mean = mean_text(arm.gate_mean, ranking.gate)
    return f", {words.metric_words(ranking.gate)} {mean}"


def _rate(arm: RankedArm | ProvisionalArm) -> str:
    """Return the rate of an arm, such as "lr 0.05, peak_lr 0.0125" if it is scaled."""
    return f"lr {arm.lr:g}" + (f", peak_lr {arm.peak_lr:.3g}" if arm.scaled else "")


def _tuned(arm: TunedArm, validation: str, width: int) -> Iterator[str]:
    rates = ", ".join(
        f"{lr}: {'-' if value is None else f'{value:.4f}'} ({arm.seeds[lr]})"
        for lr, value in arm.validation.items()
    )
    text = f"{validation} by lr (tuning seeds) {rates}"
    yield paragraph(f"-  {arm.arm}: ", text, width)


def ranking_answer(ranking: Ranking) -> Answer:
    """Return the answer of a race: the best arm, or the arms that may be the best."""
    if not ranking.seen:
        rest = ". The means above are provisional. Repeat the command to continue at "
        rest += "the same rates."
        if not ranking.provisional:
            rest = ". The tuning seeds above are too few to decide. Repeat the command "
            rest += "to continue."
        return Answer(
            "There is no ranking yet",
            f"the time was too short for {ranking.looks[0]} test seeds of each arm",
            rest,
        )
    if not ranking.arms:
        return Answer("There is no ranking", "no arm could be judged", ".")
    best, *others = ranking.arms
    training = {arm.arm: arm.gate_mean for arm in ranking.arms}
    caveats = _rates_caveat(ranking) + fit_caveat(
        training, ranking.gate, ranking.budget
    )
    if any(arm.place == "open" for arm in others):
        return _not_decided(ranking, caveats)
    ends = (mean_text(end, ranking.metric) for end in (best.low, best.high))
    interval = ", ".join(end.removesuffix(" %") for end in ends)
    numbers = (
        f"{mean_text(best.mean, ranking.metric)} [{interval}] "
        f"{words.metric_words(ranking.metric)}"
    )
    text = f", {best.n} seeds, {_rate(best)}{'' if ranking.tuning else ', not tuned'}."
    if equal := ", ".join(arm.arm for arm in others if arm.place == "equal"):
        margin = difference_margin_text(ranking.margin, "difference", ranking.metric)
        text += f" As good within the margin of {margin}:"
        text += f" {equal}."
    if pair := next((a.from_best for a in others if a.place == "worse"), None):
        (arm,) = (a.arm for a in others if a.from_best is pair)
        text += f" {arm} is worse by {_behind(pair, ranking)}."
    finding = f"{best.arm} is the best of {len(ranking.arms)} arms"
    return Answer(finding, numbers, text + caveats)


def _not_decided(ranking: Ranking, caveats: str) -> Answer:
    """Return the answer of a race with open arms: their means, and the difference.

    With several open arms, the table has their differences.
    """
    best, *others = ranking.arms
    arms = [best, *(arm for arm in others if arm.place == "open")]
    names = listed([arm.arm for arm in arms])
    means = [mean_text(arm.mean, ranking.metric) for arm in arms]
    margin = difference_margin_text(ranking.margin, "difference", ranking.metric)
    rest = f", {best.n} seeds; margin {margin}."
    metric = words.metric_words(ranking.metric)
    if len(arms) > 2:
        finding = f"Not decided which of {names} is the best"
        return Answer(finding, f"{listed(means)} {metric}", rest + caveats)
    pair = arms[1].from_best
    difference = f", {_behind(pair, ranking)}" if pair else ""
    return Answer(
        f"Not decided between {names}",
        f"{' against '.join(means)} {metric}",
        difference + rest + caveats,
    )


def _behind(pair: FromBest, ranking: Ranking) -> str:
    """Return how much worse than the best an arm is, such as "2.1 points [0.3, 4]"."""
    sign = -1 if ranking.maximized else 1
    low, high = sorted((sign * pair.low, sign * pair.high))
    difference = sign * pair.difference
    text = difference_text(difference, (low, high), "difference", ranking.metric)
    return text.replace("+", "")


def _rates_caveat(ranking: Ranking) -> str:
    """Return a sentence on rates that may be poor, or ""."""
    tried = {
        arm.arm: Tried(float(f"{arm.lr:g}"), [*map(float, arm.validation)], arm.at_edge)
        for arm in ranking.tuning
    }
    seeds = [arm.seeds[f"{arm.lr:g}"] for arm in ranking.tuning]
    few = min(seeds, default=FULL_TUNING_SEEDS) < FULL_TUNING_SEEDS
    return rates_caveat(
        tried,
        f"the rates were chosen on {min(seeds)} of {FULL_TUNING_SEEDS} tuning seeds"
        if few
        else "",
    )


def _intervals(ranking: Ranking) -> str:
    """Return what the intervals and the p values of a ranking mean."""
    confidence = f"{1 - ranking.alpha:.0%}"
    better = "higher" if ranking.maximized else "lower"
    look = (
        f"look {len(ranking.seen)} of {len(ranking.looks)}, at {ranking.seen[-1]} of "
        f"at most {ranking.looks[-1]} seeds; {words.SPENDINGS[ranking.spending]} "
        "spending"
    )
    return (
        f"{ranking.metric}: {better} is better; {confidence} intervals. Differences "
        f"are paired by seed and have repeated {confidence} intervals ({look}). p is "
        "adjusted for the looks and for all pairs of arms (Holm)."
    )


def _spent(spent: Spent) -> str:
    """Return what a phase of a race has cost."""
    already = f", {spent.found} found finished" if spent.found else ""
    return (
        f"{spent.minutes:.1f} min, {spent.runs} runs{already}, "
        f"{spent.core_seconds / 60:.1f} core minutes"
    )


def _further(ranking: Ranking) -> str:
    """Return what would settle a race, "" if it is settled."""
    further = ranking.further
    if further is None:
        return ""
    if further.seeds is None:
        return "more than 200 seeds would be needed to settle the open arms"
    time = "" if further.minutes is None else f" (about {further.minutes:.1f} min)"
    seeds = f"{further.seeds} test seeds of {len(further.arms)} arms{time}"
    if not ranking.seen:
        return f"the first look needs {seeds}; the same command continues"
    total = ranking.seen[-1] + further.seeds
    if total > ranking.looks[-1]:
        end = (
            f"but the last look is at {ranking.looks[-1]} seeds; another race, with "
            "more --seeds, would judge these seeds a second time, and err more often"
        )
    else:
        end = "the same command continues"
    return f"about {seeds} more would settle the open arms; {end}"
