"""Make a claim, without a registration, from the arms of a `compare` command."""

import shlex
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from normbench.claims.trial import Trial
from normbench.config.composition import compose
from normbench.config.overrides import grid, words
from normbench.config.rates import peak_lr
from normbench.config.schema import Budget
from normbench.errors import RequestError
from normbench.registry import explain
from normbench.tasks.base import REGISTRY as TASKS
from normbench.verdicts.conditions import TASKS as NAMES_OF_TASKS
from normbench.verdicts.design import Contrast, Design, Gate
from normbench.verdicts.naming import usual_name
from normbench.verdicts.registration import Claim, Part
from normbench.verdicts.seeds import Spending
from normbench.verdicts.verdict import DesignVerdict


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
    is an arm, each in `overrides` is a level. Where both set a key to one value, that
    of the arm counts. Several `seeds` are looks. Lower is better, unless the task
    maximizes the metric. Raises RequestError for a wrong value.
    """
    levels, labels, shared = _levels(overrides, config_dir)
    common, names_of_arms = _named_arms(_arms(arms, config_dir), words(shared))
    first, *others = names_of_arms
    split, _, quantity = metric.partition("/")
    validation_split = "val"
    if split.startswith("test_") and split != "test_batch":
        validation_split = split.replace("test", "val")
    texts = (shared, common, names_of_arms[first], *levels.values())
    maximized = _is_maximized(quantity, texts, config_dir)
    try:
        contrasts = [
            Contrast(
                name=_question(arm, first, labels[level]),
                metric=metric,
                weights={f"{arm}@{level}": 1.0, f"{first}@{level}": -1.0},
                says="greater" if maximized else "less",
                margin=margin,
                reason="given on the command line",
                part=_question(arm, first, labels[level]),
                bears="for",
                exploratory=True,
            )
            for arm, level in product(others, levels)
        ]
        design = Design(
            question=f"Which arm has the {'higher' if maximized else 'lower'} metric?",
            common=f"{shared} {common}".strip(),
            arms=names_of_arms,
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
        name=" or ".join(names_of_arms),
        statement=f"{' and '.join(others)} against {first}",
        source="asked on the command line",
        confounds=["every seed has every rate", "seeds are paired"],
        parts={
            _question(arm, first, labels[level]): Part(
                sentence=f"{arm} is better than {first}"
                + (f" at {labels[level]}." if labels[level] else "."),
                scope=shlex.join(overrides) or "the default config",
            )
            for arm, level in product(others, levels)
        },
        outcomes={"comparison": design},
    )


def peak_rates(judged: DesignVerdict, trial: Trial) -> dict[str, float]:
    """Return the peak learning rate of each cell at the rate that was chosen for it."""
    return {
        cell.cell: peak_lr(trial.config(judged.name, cell.cell, cell.usual_rate, 0))
        for cell in judged.cells
        if cell.usual_rate is not None
    }


def budget(judged: Claim, trial: Trial) -> Budget:
    """Return the length of a training of the first cell of a comparison."""
    ((name, design),) = judged.outcomes.items()
    cell = f"{next(iter(design.arms))}@{next(iter(design.levels))}"
    return trial.config(name, cell, design.rates[0], 0).budget


def _question(arm: str, first: str, label: str) -> str:
    return f"{arm} against {first}" + (f", {label}" if label else "")


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


def _arms(arms: Sequence[str], config_dir: Path | None) -> list[list[str]]:
    """Return the overrides of each arm. Raises RequestError for fewer than two arms."""
    all_texts = [
        [str(override.input_line) for override in combination]
        for arm in arms
        for combination in grid(words(arm), config_dir)
    ]
    different = [
        texts for n, texts in enumerate(all_texts) if texts not in all_texts[:n]
    ]
    if len(different) < 2:
        names = ", ".join(map(shlex.join, different)) or "none"
        raise RequestError(f"--arm: two arms or more are compared, not {names}")
    return different


def _named_arms(
    arms: Sequence[Sequence[str]], of_levels: Sequence[str]
) -> tuple[str, dict[str, str]]:
    """Return the overrides that all arms share, and name -> the other overrides.

    The norm of an arm is always in its name. The name is that of the norm in the
    papers, such as "GroupNorm with 4 groups". Where two arms would have the same name,
    or an arm has no norm, the name is the overrides. All levels have `of_levels`.
    """
    shared = [
        text
        for text in arms[0]
        if not text.startswith("norm=") and all(text in texts for texts in arms)
    ]
    own = [shlex.join(text for text in texts if text not in shared) for texts in arms]
    tasks = {f"task={task}": kind for kind, task in NAMES_OF_TASKS.items()}
    kinds = [tasks[text] for text in (*of_levels, *shared) if text in tasks]
    kind = kinds[-1] if kinds else "images"
    names = [
        usual_name(" ".join(sorted(words(text), key=_is_option)), kind)
        if any(word.startswith("norm=") for word in words(text))
        else text or "the default"
        for text in own
    ]
    # In the name of a cell, @ separates the arm from the level.
    named = {
        (name if names.count(name) == 1 else text).replace("@", "(at)"): text
        for name, text in zip(names, own, strict=True)
    }
    return shlex.join(shared), named


def _is_option(word: str) -> bool:
    return not word.startswith("norm=")


def _levels(
    overrides: Sequence[str], config_dir: Path | None
) -> tuple[dict[str, str], dict[str, str], str]:
    """Return name -> overrides of the levels, name -> label, and what levels share.

    The levels are the combinations of the values of keys that have several values. The
    name of a level is the value if a single key has several values. The label has the
    key too. One level without overrides has the name "-" and the label "".
    """
    combinations = [
        [str(override.input_line) for override in combination]
        for combination in grid(overrides, config_dir)
    ]
    shared = [t for t in combinations[0] if all(t in texts for texts in combinations)]
    levels, labels = {}, {}
    for texts in combinations:
        own = [text for text in texts if text not in shared]
        label = " ".join(own)
        name = own[0].partition("=")[2] if len(own) == 1 else label or "-"
        levels[name.replace("@", "(at)")] = shlex.join(own)
        labels[name.replace("@", "(at)")] = label
    return levels, labels, shlex.join(shared)


def _is_maximized(quantity: str, texts: Sequence[str], config_dir: Path | None) -> bool:
    """Return whether the task that `texts` choose maximizes `quantity`."""
    overrides = [override for text in texts for override in words(text)]
    task_overrides = [text for text in overrides if text.startswith("task=")]
    # The last override counts; without an override, this is the default task.
    task = TASKS.get(compose(task_overrides[-1:], config_dir).task.name)
    return task.direction == "maximize" and task.primary_metric == quantity
