"""The `compare` command that would decide between norms, and what it costs."""

import shlex
from collections.abc import Mapping, Sequence
from math import ceil, expm1

from normbench.verdicts.conditions import Condition, uses_other_samples
from normbench.verdicts.pairs import Pair
from normbench.verdicts.recommendation import Experiment
from normbench.verdicts.verdict import Verdict

RACE_RUNS = 16 + 32
"""Runs of an arm in a race: about 16 to tune its rate, and 32 test seeds at most."""
CORES = 2
STEP = 5
"""The minutes of a command are a multiple of this."""
DEFAULT_GATE = 0.5
"""That of `compare`."""


def experiment(
    norms: Sequence[str],
    asked: Condition,
    templates: Sequence[Pair],
    verdicts: Mapping[str, Verdict],
) -> Experiment | None:
    """Return the race of `norms` at the condition `asked`; None for fewer than two.

    Task, data, training, rates, gate and margin are those of one of `templates`: the
    first one at the nearest condition, and preferably with two of the norms.
    """
    if len(norms) < 2 or not templates:
        return None
    pair = min(
        templates,
        key=lambda each: (
            sum(each.condition.factors(asked)),
            -len(each.norms & {*norms}),
            len(each.first.rest),
        ),
    )
    design, quantity = pair.design, pair.contrast.metric.partition("/")[2]
    words = [f"{key}={value}" for key, value in pair.first.rest.items()]
    words.append(f"batch_size={asked.batch_size}")
    samples = asked.samples_per_statistic
    if samples not in {None, asked.batch_size} and any(map(uses_other_samples, norms)):
        words.append(f"norm_batch={samples}")
    for norm in norms:
        words += ["--arm", norm]
    words += ["--metric", pair.contrast.metric]
    words += ["--rates", ",".join(f"{rate:g}" for rate in design.rates)]
    if design.gate.metric == f"train/{quantity}" and design.gate.below != DEFAULT_GATE:
        words += ["--gate", f"{design.gate.below:g}"]
    if margin := _margin(pair, verdicts.get(pair.claim)):
        words += ["--margin", margin]
    # A smaller batch has more steps; a larger one is not assumed to be faster.
    seconds = design.seconds * max(1.0, pair.condition.batch_size / asked.batch_size)
    needed = len(norms) * RACE_RUNS * seconds / CORES / 60
    minutes = STEP * ceil(needed / STEP)
    words += ["--minutes", str(minutes)]
    return Experiment(
        command=f"normbench compare {shlex.join(words)}",
        norms=list(norms),
        minutes=minutes,
        seconds=seconds,
        claim=pair.claim,
    )


def _margin(pair: Pair, verdict: Verdict | None) -> str:
    """Return the margin as a difference, two digits; "" if the mean is not known.

    A margin on the scale "ratio" is a share of the mean of the second cell.
    """
    contrast = pair.contrast
    if contrast.scale != "ratio":
        return f"{contrast.margin:.2g}"
    negative = [cell for cell, weight in (contrast.weights or {}).items() if weight < 0]
    designs = [d for d in verdict.designs if d.name == pair.name] if verdict else []
    for design in designs:
        for cell in design.cells:
            if cell.cell in negative and contrast.metric in cell.mean:
                return f"{expm1(contrast.limit) * cell.mean[contrast.metric]:.2g}"
    return ""
