"""An answer in words: what was found, its numbers, and what limits its rates."""

from collections.abc import Collection, Mapping
from typing import NamedTuple


class Answer(NamedTuple):
    """A sentence in three parts, such as "A is better: 5 % against 6 % error, .."."""

    finding: str
    numbers: str
    rest: str
    """What follows the numbers in the sentence, and further sentences."""

    @property
    def headline(self) -> str:
        """The finding with its numbers, without a full stop."""
        return f"{self.finding}: {self.numbers}"

    @property
    def text(self) -> str:
        """The whole answer."""
        return f"{self.headline}{self.rest}"


class Tried(NamedTuple):
    """The rate that was chosen for an arm, and all rates that were tried for it."""

    lr: float
    rates: list[float]
    at_edge: bool


def rates_caveat(tried: Mapping[str, Tried], few_seeds: str = "") -> str:
    """Return a sentence on rates that may be poor, with what to do next, or "".

    `tried` has the arms of an answer, `few_seeds` what is wrong with the tuning seeds.
    """
    at_edge = [arm for arm, rates in tried.items() if rates.at_edge]
    problems = [few_seeds] if few_seeds else []
    if at_edge:
        rates, are = ("rates", "are") if len(at_edge) > 1 else ("rate", "is")
        arms = " and ".join(", ".join(at_edge).rsplit(", ", 1))
        problems.append(f"the {rates} of {arms} {are} at the edge of those tried")
    if not problems:
        return ""
    try_next = f"--rates {next_rates(tried.values())}" if at_edge else ""
    if few_seeds:
        more = "more --minutes"
        try_next += f" with {more}" if try_next else f"{more} and another --results"
    return f" But {', and '.join(problems)}: try {try_next}."


def next_rates(tried: Collection[Tried]) -> str:
    """Return the rates to try next, such as "0.2,0.4,0.8".

    They reach from the rate below the lowest chosen one to the rate above the highest.
    Beyond the rates that were tried, these are its half and its double.
    """
    chosen = sorted({arm.lr for arm in tried})
    known = sorted({rate for arm in tried for rate in arm.rates})
    rates = [known[0] / 2, *known, known[-1] * 2]
    shown = rates[rates.index(chosen[0]) - 1 : rates.index(chosen[-1]) + 2]
    return ",".join(f"{rate:g}" for rate in shown)
