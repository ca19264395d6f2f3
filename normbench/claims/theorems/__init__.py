"""What is true of norms by algebra, checked on tensors: a file per topic."""

from normbench.claims.theorems.base import Finding, check, names, statement, theorem

__all__ = ["Finding", "check", "names", "statement", "theorem"]
