"""A question of one's own, put as a claim: the same road, without a registration."""

from collections.abc import Sequence

from pydantic import ValidationError

from normbench.errors import RequestError
from normbench.plan import grid, words
from normbench.registration import Claim, Contrast, Design, Gate
from normbench.registry import explain


def comparison(
    arms: Sequence[str],
    overrides: Sequence[str],
    *,
    metric: str,
    margin: float,
    rates: Sequence[float],
    seeds: int,
    gate: float,
) -> Claim:
    """How do the other arms differ from the first?

    `arms` and `overrides` are in the grammar of a sweep: each combination of an arm's
    values is an arm of its own, and each of the overrides' a level. Lower is better.
    Raises RequestError naming what is wrong.
    """
    every = dict.fromkeys(text for arm in arms for text in _combinations(words(arm)))
    if len(every) < 2:
        named = ", ".join(every) or "none"
        raise RequestError(f"--arm: two arms or more are compared, not {named}")
    first, *others = every
    levels = {text or "-": text for text in _combinations(overrides)}
    split, _, quantity = metric.partition("/")
    held_out = split.replace("test", "val", 1) if split.startswith("test") else "val"
    validation = "val_recomputed" if held_out == "val_recomputed" else "val"
    try:
        design = Design(
            question="Which arm has the lower metric?",
            common="",
            arms={arm: arm for arm in every},
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


def _combinations(overrides: Sequence[str]) -> list[str]:
    cells = grid(overrides, None)
    return [" ".join(str(each.input_line) for each in cell) for cell in cells]
