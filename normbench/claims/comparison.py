"""A question of one's own, put as a claim: the same road, without a registration."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from normbench.config.overrides import grid, words
from normbench.errors import RequestError
from normbench.registry import explain
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
    """How do the other arms differ from the first?

    `arms` and `overrides` are in the grammar of a sweep: each combination of an arm's
    values is an arm of its own, and each of the overrides' a level. Lower is better.
    Raises RequestError naming what is wrong.
    """
    every: dict[str, str] = {}
    for arm in arms:
        every |= _combinations(words(arm), config_dir)
    if len(every) < 2:
        named = ", ".join(every) or "none"
        raise RequestError(f"--arm: two arms or more are compared, not {named}")
    first, *others = every
    levels = _combinations(overrides, config_dir)
    split, _, quantity = metric.partition("/")
    held_out = split.replace("test", "val", 1) if split.startswith("test") else "val"
    validation = "val_recomputed" if held_out == "val_recomputed" else "val"
    try:
        design = Design(
            question="Which arm has the lower metric?",
            common="",
            arms=every,
            levels=levels,
            rates=list(rates),
            validation=f"{validation}/{quantity}",
            seeds=seeds,
            seconds=10.0,
            gate=Gate(metric=f"train/{quantity}", below=gate),
            contrasts=[
                Contrast(
                    name=f"{arm} against {first}" + f", {level}" * (level != "-"),
                    metric=metric,
                    weights={f"{arm}@{level}": 1.0, f"{first}@{level}": -1.0},
                    says="less",
                    margin=margin,
                    reason="given on the command line",
                    primary=True,
                    exploratory=True,
                )
                for arm in others
                for level in levels
            ],
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


def _combinations(overrides: Sequence[str], config_dir: Path | None) -> dict[str, str]:
    """A name of each combination of values -> its overrides, quoted as a shell does."""
    combinations = {}
    for cell in grid(overrides, config_dir):
        lines = [str(override.input_line) for override in cell]
        # In the name of a cell, @ parts the arm from the level.
        name = " ".join(lines).replace("@", "(at)") or "-"
        combinations[name] = shlex.join(lines)
    return combinations
