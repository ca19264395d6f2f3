"""What is true of norms by algebra, checked on tensors: one file per topic."""

from normbench.claims.theorems.base import (
    Finding,
    check,
    finding,
    names,
    statement,
    theorem,
)

__all__ = ["Finding", "check", "finding", "names", "statement", "theorem"]
