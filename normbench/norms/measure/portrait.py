"""The footprints and invariances of one norm together, and as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from normbench.errors import Incompatible
from normbench.norms.base import REGISTRY, Norm, make
from normbench.norms.measure.dependence import Dependence
from normbench.norms.measure.footprint import Footprint, footprints
from normbench.norms.measure.invariance import TOLERANCE, Invariance, invariances

SAMPLES = 4
IMAGE = (6, 6)
SEQUENCE = (9,)
LEAST_CHANNELS = 8


@dataclass(frozen=True)
class NormChoice:
    """A norm as the user chose it: `label`, which stands for `name` with `options`."""

    label: str
    name: str
    options: Mapping[str, Any]

    def make(self, channels: int) -> Norm:
        """The norm over `channels` channels; raises as `norms.make`."""
        return make(self.name, channels, **self.options)


@dataclass(frozen=True)
class Portrait:
    """What one norm does to inputs of one shape."""

    norm: NormChoice
    shape: tuple[int, ...]
    footprints: tuple[Footprint, ...]
    invariances: tuple[Invariance, ...]

    def plain(self) -> dict[str, Any]:
        """The portrait as JSON has it."""
        return {
            "name": self.norm.label,
            "norm": {"name": self.norm.name, **self.norm.options},
            "shape": list(self.shape),
            "axes": REGISTRY.get(self.norm.name).axes,
            "modes": [
                {
                    "mode": footprint.mode.value,
                    "mask": footprint.value.mask is not None,
                    "value": _plain(footprint.value),
                    "gradient": _plain(footprint.gradient),
                    "agree": footprint.agree,
                }
                for footprint in self.footprints
            ],
            "invariances": [
                {
                    "to": invariance.to.name,
                    "tolerance": TOLERANCE,
                    "train": invariance.train,
                    "holds_in_train": invariance.holds_in_train,
                    "eval": invariance.eval,
                    "holds_in_eval": invariance.holds_in_eval,
                }
                for invariance in self.invariances
            ],
        }


def _plain(dependence: Dependence) -> dict[str, Any]:
    return {
        "words": dependence.words,
        "entries": list(dependence.range),
        "parts": [
            {"outputs": part.where, "words": part.words, "entries": list(part.entries)}
            for part in dependence.parts
        ],
    }


def portrait(norm: NormChoice, channels: int, sequence: bool = False) -> Portrait:
    """Measure `norm` on 4 images of `channels` x 6 x 6, or 4 sequences of 9 positions.

    Sequences are measured without and with a mask. Raises RequestError or Incompatible
    as the norm does.
    """
    layer = norm.make(channels)
    shape = (SAMPLES, channels, *(SEQUENCE if sequence else IMAGE))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # in thousands of tiny calls, more threads only wait
    try:
        measured = footprints(layer, shape)
        if sequence:
            measured += footprints(layer, shape, masked=True)
        return Portrait(norm, shape, measured, invariances(layer, shape))
    finally:
        torch.set_num_threads(threads)


def fitting(norms: Sequence[NormChoice]) -> int:
    """The fewest channels that suit all `norms`, 8 or more, two or more to a group."""
    # Two groups of that size, or groups of two channels.
    options = [norm.options for norm in norms]
    numbers = (o.get("group_size") or o.get("num_groups") or 1 for o in options)
    least = max([LEAST_CHANNELS, *(2 * number for number in numbers)])
    for channels in range(least, 8 * least + 1, 2):
        try:
            for norm in norms:
                norm.make(channels)
        except Incompatible as error:
            refusal = error
        else:
            return channels
    raise refusal
