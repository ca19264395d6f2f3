"""Measure the footprints and the invariances of one norm, and convert them to JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from normbench.errors import Incompatible
from normbench.norms.base import REGISTRY, Norm, make
from normbench.norms.groups import AUTO, MIN_GROUP_SIZE
from normbench.norms.measure.dependence import Dependence
from normbench.norms.measure.footprint import Footprint, footprints
from normbench.norms.measure.invariance import TOLERANCE, Invariance, invariances

SAMPLES = 4
IMAGE = (6, 6)
SEQUENCE = (9,)
MIN_CHANNELS = 8


@dataclass(frozen=True)
class NormChoice:
    """A norm that the user chose: `label` is the given name, such as "layer".

    `name` and `options` are those of the norm that the label stands for.
    """

    label: str
    name: str
    options: Mapping[str, Any]

    def make(self, channels: int) -> Norm:
        """Return a new layer for `channels` channels; raises like `norms.make`."""
        return make(self.name, channels, **self.options)


@dataclass(frozen=True)
class Portrait:
    """The footprints and invariances of one norm on inputs of one shape."""

    norm: NormChoice
    shape: tuple[int, ...]
    footprints: tuple[Footprint, ...]
    invariances: tuple[Invariance, ...]

    def plain(self) -> dict[str, Any]:
        """Return the measurements as JSON values."""
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
            {
                "outputs": part.outputs,
                "words": part.words,
                "entries": list(part.entries),
            }
            for part in dependence.parts
        ],
    }


def portrait(norm: NormChoice, channels: int, sequence: bool = False) -> Portrait:
    """Measure `norm` on 4 images of 6 x 6 pixels, or on 4 sequences of 9 positions.

    Sequences are measured without a mask and with a mask. Raises RequestError or
    Incompatible if the norm raises it.
    """
    layer = norm.make(channels)
    shape = (SAMPLES, channels, *(SEQUENCE if sequence else IMAGE))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # fastest for thousands of tiny operations
    try:
        measured = footprints(layer, shape)
        if sequence:
            measured += footprints(layer, shape, masked=True)
        return Portrait(norm, shape, measured, invariances(layer, shape))
    finally:
        torch.set_num_threads(threads)


def fitting(norms: Sequence[NormChoice]) -> int:
    """Return the smallest number of channels, at least 8, that fits all `norms`.

    Norms with groups get at least two groups and two channels per group. Raises
    Incompatible if no small number fits.
    """
    minimum = MIN_CHANNELS
    for norm in norms:
        options = norm.options
        group_option = options.get("group_size") or options.get("num_groups") or 1
        if group_option == AUTO:
            group_option = MIN_GROUP_SIZE
        # Two groups of `group_size` channels, or `num_groups` groups of two channels.
        minimum = max(minimum, 2 * group_option)
    for channels in range(minimum, 8 * minimum + 1, 2):
        try:
            for norm in norms:
                norm.make(channels)
        except Incompatible as error:
            last_error = error
        else:
            return channels
    raise last_error
