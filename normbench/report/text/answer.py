"""An answer in words: what was found, its numbers, and what limits its rates."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from normbench.config.schema import Budget

POOR_FIT = 0.1
"""A mean training error above this is named in the answer."""


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


def fit_caveat(
    training: Mapping[str, float | None], metric: str, budget: Budget | None
) -> str:
    """Return a sentence on arms that fit their training data poorly, or "".

    `training` has the mean of the training metric `metric` of each arm of an answer.
    Only an error is judged: with an error above POOR_FIT, longer training may change
    the order of the arms.
    """
    poor = {arm: error for arm, error in training.items() if error and error > POOR_FIT}
    if not poor or not metric.endswith("/error"):
        return ""
    after, longer = "", "a larger budget.epochs"
    if budget is not None:
        after = f"after {length(budget)} "
        longer = f"budget.epochs={4 * budget.epochs}"
        if budget.max_steps is not None:
            longer = f"budget.max_steps={4 * budget.max_steps}"
    errors = " and ".join(f"{100 * error:.0f} % ({arm})" for arm, error in poor.items())
    return (
        f" But {after}the training error is still {errors}: more training may change "
        f"the answer, try {longer}."
    )


def length(budget: Budget) -> str:
    """Return the length of a training, such as "2 epochs" or "at most 100 steps"."""
    if budget.max_steps is not None:
        return f"at most {budget.max_steps} steps"
    return f"{budget.epochs} epoch{'s' if budget.epochs > 1 else ''}"


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
