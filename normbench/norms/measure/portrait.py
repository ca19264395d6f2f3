"""All that is measured of one norm: footprints and invariances, and as plain data."""

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
class Portrait:
    """What one norm does to inputs of one shape."""

    name: str
    """As the user chose it; `options` says what it stands for."""
    options: Mapping[str, Any]
    shape: tuple[int, ...]
    axes: str
    footprints: tuple[Footprint, ...]
    invariances: tuple[Invariance, ...]

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "name": self.name,
            "norm": dict(self.options),
            "shape": list(self.shape),
            "axes": self.axes,
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
        "entries": [
            min(part.entries[0] for part in dependence.parts),
            max(part.entries[1] for part in dependence.parts),
        ],
        "parts": [
            {"outputs": part.where, "words": part.words, "entries": list(part.entries)}
            for part in dependence.parts
        ],
    }


def portrait(
    name: str, options: Mapping[str, Any], channels: int, sequence: bool = False
) -> Portrait:
    """Measure the norm that `options` (with its "name") ask for, called `name`.

    Inputs are 4 images of `channels` x 6 x 6, or 4 sequences of 9 positions, without
    and with a mask. Raises RequestError or Incompatible as the norm does.
    """
    norm = build(options, channels)
    shape = (SAMPLES, channels, *(SEQUENCE if sequence else IMAGE))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # thousands of tiny calls: more threads only wait
    try:
        found = footprints(norm, shape)
        if sequence:
            found += footprints(norm, shape, masked=True)
        invariant = invariances(norm, shape)
    finally:
        torch.set_num_threads(threads)
    return Portrait(
        name=name,
        options=options,
        shape=shape,
        axes=getattr(REGISTRY.get(options["name"]), "axes", ""),
        footprints=found,
        invariances=invariant,
    )


def build(options: Mapping[str, Any], channels: int) -> Norm:
    """The norm that `options`, "name" among them, ask for."""
    hyper = {key: value for key, value in options.items() if key != "name"}
    return make(options["name"], channels, **hyper)


def fitting(norms: Sequence[Mapping[str, Any]]) -> int:
    """The fewest channels that suit all `norms`, 8 or more, two or more to a group."""
    # Two groups of that size, or groups of two channels.
    numbers = (n.get("group_size") or n.get("num_groups") or 1 for n in norms)
    least = max([LEAST_CHANNELS, *(2 * number for number in numbers)])
    for channels in range(least, 8 * least + 1, 2):
        try:
            for norm in norms:
                build(norm, channels)
        except Incompatible as reason:
            refusal = reason
        else:
            return channels
    raise refusal
