"""Statements about norms that hold by algebra, checked on tensors: a file per topic."""

from normbench.claims.theorems.base import (
    Finding,
    check,
    finding,
    names,
    statement,
    theorem,
)

__all__ = ["Finding", "check", "finding", "names", "statement", "theorem"]
