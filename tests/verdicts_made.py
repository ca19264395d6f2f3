"""Reads the verdicts that are committed in results/claims."""

from functools import cache
from pathlib import Path

from normbench.verdicts.files import read_verdict
from normbench.verdicts.verdict import Verdict

CLAIMS = Path(__file__).parents[1] / "results" / "claims"
NAMES = sorted(path.parent.name for path in CLAIMS.glob("*/verdict.json"))


@cache
def committed(name: str) -> Verdict:
    """Return the verdict of a full check, with its remarks."""
    verdict = read_verdict(CLAIMS / name / "verdict.json")
    assert verdict is not None
    return verdict
