"""Make a claim, without a registration, from the arms of a `compare` command."""

import shlex
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from normbench.config.composition import compose
from normbench.config.overrides import grid, words
from normbench.errors import RequestError
from normbench.registry import explain
from normbench.tasks.base import REGISTRY as TASKS
from normbench.verdicts.design import Contrast, Design, Gate
from normbench.verdicts.registration import Claim, Part
from normbench.verdicts.seeds import Spending


def comparison(
    arms: Sequence[str],
    overrides: Sequence[str],
    *,
    metric: str,
    margin: float,
    rates: Sequence[float],
    seeds: Sequence[int],
    spending: Spending = "pocock",
    gate: float,
    config_dir: Path | None = None,
) -> Claim:
    """Return the claim that each of the other arms is better than the first arm.

    As in a sweep, a key may have several values. Each combination of values in `arms`
    is an arm, each in `overrides` is a level. Several `seeds` are looks. Lower is
    better, unless the task maximizes the metric. Raises RequestError for a wrong value.
    """
    overrides_of_arm = _arms(arms, config_dir)
    first, *others = overrides_of_arm
    levels = _combinations(overrides, config_dir)
    split, _, quantity = metric.partition("/")
    validation_split = "val"
    if split.startswith("test_") and split != "test_batch":
        validation_split = split.replace("test", "val")
    texts = (overrides_of_arm[first], *levels.values())
    maximized = _is_maximized(quantity, texts, config_dir)
    try:
        contrasts = [
            Contrast(
                name=_question(arm, first, level),
                metric=metric,
                weights={f"{arm}@{level}": 1.0, f"{first}@{level}": -1.0},
                says="greater" if maximized else "less",
                margin=margin,
                reason="given on the command line",
                part=_question(arm, first, level),
                bears="for",
                exploratory=True,
            )
            for arm, level in product(others, levels)
        ]
        design = Design(
            question=f"Which arm has the {'higher' if maximized else 'lower'} metric?",
            common="",
            arms=overrides_of_arm,
            levels=levels,
            rates=list(rates),
            validation=f"{validation_split}/{quantity}",
            **_seeds(seeds, spending),
            seconds=10.0,
            gate=Gate(metric=f"train/{quantity}", below=gate),
            contrasts=contrasts,
        )
    except ValidationError as error:
        raise RequestError(explain(error)) from None
    return Claim(
        name="comparison",
        statement=f"{' and '.join(others)} against {first}",
        source="asked on the command line",
        confounds=["every seed has every rate", "seeds are paired"],
        parts={
            _question(arm, first, level): Part(
                sentence=f"{arm} is better than {first}"
                + ("." if level == "-" else f" at {level}."),
                scope=shlex.join(overrides) or "the default config",
            )
            for arm, level in product(others, levels)
        },
        outcomes={"comparison": design},
    )


def _question(arm: str, first: str, level: str) -> str:
    return f"{arm} against {first}" + ("" if level == "-" else f", {level}")


def _seeds(seeds: Sequence[int], spending: Spending) -> dict[str, Any]:
    """Return the keys of a design for a fixed number of seeds, or for several looks."""
    if len(seeds) > 1:
        return {"looks": list(seeds), "spending": spending}
    if spending != "pocock":
        raise RequestError(
            f"--spending {spending} divides alpha among looks; give --seeds several "
            "numbers, such as 8,16,24,32"
        )
    return {"seeds": seeds[0]}


def _arms(arms: Sequence[str], config_dir: Path | None) -> dict[str, str]:
    """Return arm -> its overrides. Raises RequestError for fewer than two arms."""
    overrides_of_arm: dict[str, str] = {}
    for arm in arms:
        overrides_of_arm |= _combinations(words(arm), config_dir)
    if len(overrides_of_arm) < 2:
        names = ", ".join(overrides_of_arm) or "none"
        raise RequestError(f"--arm: two arms or more are compared, not {names}")
    return overrides_of_arm


def _is_maximized(quantity: str, texts: Sequence[str], config_dir: Path | None) -> bool:
    """Return whether the task that `texts` choose maximizes `quantity`."""
    overrides = [override for text in texts for override in words(text)]
    task_overrides = [text for text in overrides if text.startswith("task=")]
    # The last override counts; without an override, this is the default task.
    task = TASKS.get(compose(task_overrides[-1:], config_dir).task.name)
    return task.direction == "maximize" and task.primary_metric == quantity


def _combinations(overrides: Sequence[str], config_dir: Path | None) -> dict[str, str]:
    """Return name -> shell-quoted overrides, for each combination of values."""
    combinations = {}
    for combination in grid(overrides, config_dir):
        texts = [str(override.input_line) for override in combination]
        # In the name of a cell, @ separates the arm from the level. The name "-" stands
        # for no overrides.
        name = " ".join(texts).replace("@", "(at)") or "-"
        combinations[name] = shlex.join(texts)
    return combinations
