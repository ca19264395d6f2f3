"""Describe in words which inputs the outputs of a norm depend on.

For example: "one sample, one group of 4 channels, all positions".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Part:
    """A group of outputs with the same description, for example some channels."""

    outputs: str
    """The name of the group, such as "channels 0-3"; empty for all outputs."""
    words: str
    """The description, as "one sample, one group of 4 channels, all positions"."""
    entries: tuple[int, int]
    """The minimum and the maximum number of inputs that an output depends on."""
    output: tuple[int, int, int]
    """An output that depends on the most inputs: sample, channel, position."""

    def __str__(self) -> str:
        return f"{self.outputs}: {self.words}" if self.outputs else self.words


@dataclass(frozen=True)
class Dependence:
    """The inputs that each output depends on, as an array and in words."""

    entries: Bools
    """(N, C, P, N, C, P) for P positions. The first three indices choose an output, and
    the last three indices choose an input. An entry is True if the output depends on
    the input. All entries of an output at a masked position are False."""
    mask: Bools | None
    """(N, P), True at real positions; None if the norm got no mask."""
    parts: tuple[Part, ...]

    @property
    def words(self) -> str:
        """All parts in words, such as "channels 0-3: ...; channels 4-7: ..."."""
        return "; ".join(map(str, self.parts))

    @property
    def range(self) -> tuple[int, int]:
        """The minimum and the maximum number of inputs that an output depends on."""
        return (
            min(part.entries[0] for part in self.parts),
            max(part.entries[1] for part in self.parts),
        )

    @property
    def count(self) -> str:
        """The number of inputs, such as "144", or "3-5" if outputs differ."""
        minimum, maximum = self.range
        return str(minimum) if minimum == maximum else f"{minimum}-{maximum}"

    def same(self, other: "Dependence") -> bool:
        """Return whether each output depends on the same inputs in `other`."""
        return bool((self.entries == other.entries).all())


def describe(entries: Bools, mask: Bools | None = None) -> Dependence:
    """Return a Dependence that describes the array `entries` (N, C, P, N, C, P).

    The inputs of an output are described as a union of boxes. A box combines a choice
    of samples, of channels and of positions. Outputs with the same words form a Part.
    """
    samples, channels, positions = entries.shape[:3]
    read_channels = np.asarray(entries.any(axis=(0, 2, 3, 5)))  # (C, C): output, input
    boxes = _boxes(entries, read_channels, mask)
    count = samples * channels * positions
    sets = entries.reshape(count, count)  # row: the inputs that one output depends on
    covered = np.zeros_like(sets)  # row: the union of the boxes used for this output
    box_names: list[list[str]] = [[] for _ in range(count)]
    real = np.ones(count, dtype=bool)
    if mask is not None:
        real = np.repeat(mask[:, None], channels, axis=1).reshape(-1)
    for name, box in boxes:
        # An output uses a box if all inputs in the box belong to the output's set and
        # some of these inputs are not covered yet.
        is_subset = ~(box & ~sets).any(axis=1)
        is_used = is_subset & (box & ~covered).any(axis=1) & real
        covered |= box & is_used[:, None]
        for output in np.flatnonzero(is_used):
            box_names[output].append(name)
    exact = (covered == sets).all(axis=1)
    channel_words = [_channel_words(read_channels, c) for c in range(channels)]

    outputs: dict[str, list[int]] = {}
    for output in np.flatnonzero(real):
        words = " + ".join(box_names[output]) or "nothing"
        if not exact[output]:
            words = "an irregular set of entries"
        channel = output // positions % channels
        words = words.replace(_READ_CHANNELS, channel_words[channel])
        outputs.setdefault(words, []).append(int(output))
    return Dependence(entries, mask, _parts(outputs, sets, entries.shape[:3]))


_READ_CHANNELS = "<channels>"
"""Stands for the words about the channels that an output depends on."""


def _boxes(
    entries: Bools, read_channels: Bools, mask: Bools | None
) -> list[tuple[str, Bools]]:
    """Return all boxes with their words, the largest box first.

    A box is an array (outputs, inputs), which is True for the inputs in the box of each
    output.
    """
    samples, channels, positions = entries.shape[:3]
    identity = {size: np.eye(size, dtype=bool) for size in entries.shape[:3]}
    everything = {size: np.ones((size, size), dtype=bool) for size in entries.shape[:3]}
    by_sample = {"one sample": identity[samples], "all samples": everything[samples]}
    by_channel = {
        "one channel": identity[channels],
        _READ_CHANNELS: read_channels,
        "all channels": everything[channels],
    }
    by_position = {
        "one position": identity[positions],
        "all positions": everything[positions],
    }
    no_mask = np.ones((samples, positions), dtype=bool)
    boxes = []
    for (in_sample, sample), (in_channel, channel), (in_position, position) in product(
        by_sample.items(), by_channel.items(), by_position.items()
    ):
        masks = [(in_position, no_mask)]
        if mask is not None and in_position == "all positions":
            masks.append(("all real positions", mask))
        for position_words, allowed in masks:
            box = (
                sample[:, None, None, :, None, None]
                & channel[None, :, None, None, :, None]
                & position[None, None, :, None, None, :]
                & allowed[None, None, None, :, None, :]
            )
            words = f"{in_sample}, {in_channel}, {position_words}"
            boxes.append((words, box.reshape(entries[0, 0, 0].size, -1)))
    return sorted(boxes, key=lambda pair: -int(pair[1].sum()))


def _channel_words(read_channels: Bools, channel: int) -> str:
    """Return words for the channels that an output of `channel` depends on."""
    read = read_channels[channel]
    if read.all() and len(read) > 1:
        return "all channels"
    if read.sum() <= 1:
        return "one channel"
    # In a group, all channels depend on the same channels.
    if (read_channels[read] == read).all():
        return f"one group of {read.sum()} channels"
    # Windows at the first and last channels are smaller. The words have the full size.
    return f"a window of {read_channels.sum(axis=1).max()} channels"


def _parts(
    outputs: dict[str, list[int]], sets: Bools, shape: tuple[int, ...]
) -> tuple[Part, ...]:
    """Return a Part for each description.

    `outputs` maps each description to the flat indices (sample, channel, position) of
    its outputs. The rows of `sets` have the same indices.
    """
    output_count = sum(map(len, outputs.values()))
    channels = {
        words: sorted({output // shape[2] % shape[1] for output in members})
        for words, members in outputs.items()
    }
    all_channels = set().union(*channels.values())
    # True if all outputs of a channel have the same description.
    differ_by_channel = sum(map(len, channels.values())) == len(all_channels)
    parts = []
    for words, members in outputs.items():
        sizes = sets[members].sum(axis=1)
        if len(outputs) == 1:
            name = ""
        elif differ_by_channel:
            name = f"channels {_ranges(channels[words])}"
        else:
            name = f"{len(members) / output_count:.0%} of outputs"
        sample, channel, position = np.unravel_index(np.array(members), shape)
        # Choose the output with the most inputs. If several outputs have as many,
        # choose the output that is in front in a drawing. The last key of lexsort
        # decides first.
        best = np.lexsort((position, -channel, sample, -sizes))[0]
        output = int(sample[best]), int(channel[best]), int(position[best])
        entries = int(sizes.min()), int(sizes.max())
        parts.append(Part(name, words, entries, output))
    return tuple(parts)


def _ranges(numbers: Sequence[int]) -> str:
    """Return sorted numbers as text, with consecutive numbers joined: "0-3, 6"."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in ranges)
