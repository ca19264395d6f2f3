"""Choose the learning rate of a cell from the runs of its tuning seeds."""

import statistics
from collections.abc import Mapping, Sequence
from itertools import chain

from normbench.config.schema import RunRecord
from normbench.verdicts.contrasts import is_maximized, metric_of
from normbench.verdicts.registration import Design
from normbench.verdicts.verdict import Rate


def untuned(lr: float, *, frozen: bool = False) -> Rate:
    """Return a rate that was not tuned here; `frozen` if an earlier check chose it."""
    return Rate(lr=lr, validation={}, good=[], at_edge=False, frozen=frozen)


def with_one_more(rates: Sequence[float], best: Rate) -> list[float]:
    """Return the ascending `rates`, and one more rate beyond their edge `best`."""
    if best.lr == rates[0]:
        return [rates[0] / 2, *rates]
    return [*rates, rates[-1] * 2]


def best_rate(design: Design, records: Mapping[float, Sequence[RunRecord]]) -> Rate:
    """Return the rate whose records have the best mean validation metric.

    `records` are the runs of the tuning seeds by rate. Lower is better, unless the task
    maximizes the metric. If all rates diverged, the lowest rate is the best, and it is
    at the edge. A single rate is not tuned and is not at an edge.
    """
    all_records = [*chain.from_iterable(records.values())]
    sign = -1 if is_maximized(design.validation, all_records) else 1
    validation: dict[float, float | None] = {}
    for lr, runs in sorted(records.items()):
        values = [metric_of(run, design.validation) for run in runs]
        finite = [value for value in values if value is not None]
        complete = len(finite) == design.tuning_seeds
        validation[lr] = statistics.mean(finite) if complete else None
    rates = list(validation)
    scores = {lr: value for lr, value in validation.items() if value is not None}
    best = min(scores, key=lambda lr: sign * scores[lr], default=rates[0])
    quantity = design.validation.partition("/")[2]
    margins = [
        contrast.margin
        for contrast in design.contrasts
        if contrast.metric.partition("/")[2] == quantity and not contrast.log2
    ]
    # A rate is good if its metric is within the smallest margin of the best metric.
    limit = sign * scores.get(best, 0.0) + min(margins, default=0.0)
    return Rate(
        lr=best,
        validation={f"{lr:g}": value for lr, value in validation.items()},
        good=[lr for lr, value in scores.items() if sign * value <= limit],
        at_edge=len(rates) > 1 and best in {rates[0], rates[-1]},
        frozen=False,
    )
