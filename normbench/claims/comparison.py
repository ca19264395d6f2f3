"""A question of the user's own as a claim, without a registration."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from normbench.config.composition import compose
from normbench.config.overrides import grid, words
from normbench.errors import RequestError
from normbench.registry import explain
from normbench.tasks.base import REGISTRY as TASKS
from normbench.verdicts.registration import Claim, Contrast, Design, Gate


def comparison(
    arms: Sequence[str],
    overrides: Sequence[str],
    *,
    metric: str,
    margin: float,
    rates: Sequence[float],
    seeds: int,
    gate: float,
    config_dir: Path | None = None,
) -> Claim:
    """A claim that every other arm is better than the first one.

    `arms` and `overrides` are in the grammar of a sweep: each combination of an arm's
    values is an arm, each combination of the overrides a level. Lower is better, unless
    the task maximizes the metric. Raises RequestError naming what is wrong.
    """
    every = _arms(arms, config_dir)
    first, *others = every
    levels = _combinations(overrides, config_dir)
    split, _, quantity = metric.partition("/")
    validation = "val_recomputed" if split == "test_recomputed" else "val"
    cell = (every[first], *levels.values())
    maximized = _is_maximized(quantity, cell, config_dir)

    def contrast(arm: str, level: str) -> Contrast:
        return Contrast(
            name=f"{arm} against {first}" + f", {level}" * (level != "-"),
            metric=metric,
            weights={f"{arm}@{level}": 1.0, f"{first}@{level}": -1.0},
            says="greater" if maximized else "less",
            margin=margin,
            reason="given on the command line",
            primary=True,
            exploratory=True,
        )

    try:
        design = Design(
            question=f"Which arm has the {'higher' if maximized else 'lower'} metric?",
            common="",
            arms=every,
            levels=levels,
            rates=list(rates),
            validation=f"{validation}/{quantity}",
            seeds=seeds,
            seconds=10.0,
            gate=Gate(metric=f"train/{quantity}", below=gate),
            contrasts=[contrast(arm, level) for arm in others for level in levels],
        )
    except ValidationError as error:
        raise RequestError(explain(error)) from None
    return Claim(
        name="comparison",
        statement=f"{' and '.join(others)} against {first}",
        source="asked on the command line",
        confounds=["rates are tuned for each arm and level", "seeds are paired"],
        outcomes={"comparison": design},
    )


def _arms(arms: Sequence[str], config_dir: Path | None) -> dict[str, str]:
    every: dict[str, str] = {}
    for arm in arms:
        every |= _combinations(words(arm), config_dir)
    if len(every) < 2:
        named = ", ".join(every) or "none"
        raise RequestError(f"--arm: two arms or more are compared, not {named}")
    return every


def _is_maximized(quantity: str, cell: Sequence[str], config_dir: Path | None) -> bool:
    """Whether the task of the overrides of a cell maximizes the quantity."""
    overrides = [override for text in cell for override in words(text)]
    choice = [override for override in overrides if override.startswith("task=")]
    task = TASKS.get(compose(choice[-1:], config_dir).task.name)
    return task.direction == "maximize" and task.primary_metric == quantity


def _combinations(overrides: Sequence[str], config_dir: Path | None) -> dict[str, str]:
    """The name of each combination of values -> its overrides, quoted for a shell."""
    combinations = {}
    for cell in grid(overrides, config_dir):
        lines = [str(override.input_line) for override in cell]
        # In the name of a cell, @ separates the arm from the level.
        name = " ".join(lines).replace("@", "(at)") or "-"
        combinations[name] = shlex.join(lines)
    return combinations
