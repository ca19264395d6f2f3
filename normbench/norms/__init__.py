"""Normalization layers: one file per layer, created by name."""

from normbench.norms.base import REGISTRY, Norm, make, names
from normbench.norms.evaluation import recompute_statistics, use_batch_statistics
from normbench.norms.factory import NormAct, NormFactory
from normbench.norms.ghost import Ghost

__all__ = [
    "REGISTRY",
    "Ghost",
    "Norm",
    "NormAct",
    "NormFactory",
    "make",
    "names",
    "recompute_statistics",
    "use_batch_statistics",
]
