"""A dependence in words: "one sample, one group of 4 channels, all positions"."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Part:
    """Output entries with one description: all, or those of some channels."""

    where: str
    """"" for all outputs, else such as "channels 0-3"."""
    words: str
    """Such as "one sample, one group of 4 channels, all positions"."""
    entries: tuple[int, int]
    """How many inputs such an output depends on: the least and the most."""
    output: tuple[int, int, int]
    """One such output, with the most entries: sample, channel, position."""

    def __str__(self) -> str:
        return f"{self.where}: {self.words}" if self.where else self.words


@dataclass(frozen=True)
class Dependence:
    """Which inputs each output depends on, as an array and in words."""

    entries: Bools
    """(N, C, P, N, C, P), P positions: output first, then input. Outputs at masked
    positions, which nobody reads, depend on nothing."""
    mask: Bools | None
    """(N, P), True where real; None where the norm was given no mask."""
    parts: tuple[Part, ...]

    @property
    def words(self) -> str:
        """All parts, such as "channels 0-3: ...; channels 4-7: ..."."""
        return "; ".join(map(str, self.parts))

    @property
    def range(self) -> tuple[int, int]:
        """How many inputs an output depends on: the least and the most."""
        return (
            min(part.entries[0] for part in self.parts),
            max(part.entries[1] for part in self.parts),
        )

    @property
    def count(self) -> str:
        """The number of entries, such as "144", or "3-5" where outputs differ."""
        low, high = self.range
        return str(low) if low == high else f"{low}-{high}"

    def same(self, other: "Dependence") -> bool:
        """Each output depends on the same inputs in `other`."""
        return bool((self.entries == other.entries).all())

    @property
    def other_samples(self) -> bool:
        """Some output depends on another sample."""
        between = _any(self.entries, (1, 2, 4, 5))
        return bool(between[~np.eye(len(between), dtype=np.bool_)].any())

    @property
    def masked_positions(self) -> bool:
        """Some output depends on a masked position."""
        if self.mask is None:
            return False
        return bool(_any(self.entries, (0, 1, 2, 4))[~self.mask].any())


def describe(entries: Bools, mask: Bools | None = None) -> Dependence:
    """Dependence (N, C, P, N, C, P) in words.

    The set of each output is written as a union of boxes, one choice each of samples,
    channels and positions; outputs with the same words make a part.
    """
    samples, channels, positions = entries.shape[:3]
    near = _any(entries, (0, 2, 3, 5))  # (C, C): output, input
    boxes = _boxes(entries, near, mask)
    count = samples * channels * positions
    sets = entries.reshape(count, count)
    covered = np.zeros_like(sets)
    chosen: list[list[str]] = [[] for _ in range(count)]
    real = np.ones(count, dtype=bool)
    if mask is not None:
        real = np.repeat(mask[:, None], channels, axis=1).reshape(-1)
    for name, box in boxes:
        fits = ~(box & ~sets).any(axis=1)
        adds = fits & (box & ~covered).any(axis=1) & real
        covered |= box & adds[:, None]
        for output in np.flatnonzero(adds):
            chosen[output].append(name)
    exact = (covered == sets).all(axis=1)
    channel_words = [_channel_words(near, c) for c in range(channels)]

    outputs: dict[str, list[int]] = {}
    for output in np.flatnonzero(real):
        words = " + ".join(chosen[output]) or "nothing"
        if not exact[output]:
            words = "an irregular set of entries"
        channel = output // positions % channels
        words = words.replace(_NEAR, channel_words[channel])
        outputs.setdefault(words, []).append(int(output))
    return Dependence(entries, mask, _parts(outputs, sets, entries.shape[:3]))


def _any(entries: Bools, axes: tuple[int, ...]) -> Bools:
    return np.asarray(entries.any(axis=axes))


_NEAR = "<channels>"


def _boxes(entries: Bools, near: Bools, mask: Bools | None) -> list[tuple[str, Bools]]:
    """Every box in words, as (outputs, inputs); the largest first."""
    samples, channels, positions = entries.shape[:3]
    identity = {size: np.eye(size, dtype=bool) for size in entries.shape[:3]}
    everything = {size: np.ones((size, size), dtype=bool) for size in entries.shape[:3]}
    by_sample = {"one sample": identity[samples], "all samples": everything[samples]}
    by_channel = {
        "one channel": identity[channels],
        _NEAR: near,
        "all channels": everything[channels],
    }
    by_position = {
        "one position": identity[positions],
        "all positions": everything[positions],
    }
    everywhere = np.ones((samples, positions), dtype=bool)
    boxes = []
    for (s, sample), (c, channel), (p, position) in product(
        by_sample.items(), by_channel.items(), by_position.items()
    ):
        kinds = [(p, everywhere)]
        if mask is not None and p == "all positions":
            kinds.append(("all real positions", mask))
        for words, allowed in kinds:
            box = (
                sample[:, None, None, :, None, None]
                & channel[None, :, None, None, :, None]
                & position[None, None, :, None, None, :]
                & allowed[None, None, None, :, None, :]
            )
            boxes.append((f"{s}, {c}, {words}", box.reshape(entries[0, 0, 0].size, -1)))
    return sorted(boxes, key=lambda pair: -int(pair[1].sum()))


def _channel_words(near: Bools, channel: int) -> str:
    """What to call the channels that an output of `channel` reads."""
    read = near[channel]
    if read.all() and len(read) > 1:
        return "all channels"
    if read.sum() <= 1:
        return "one channel"
    if (near[read] == read).all():
        return f"one group of {read.sum()} channels"
    return f"a window of {near.sum(axis=1).max()} channels"


def _parts(
    outputs: dict[str, list[int]], sets: Bools, shape: tuple[int, ...]
) -> tuple[Part, ...]:
    total = sum(map(len, outputs.values()))
    channels = {
        words: sorted({member // shape[2] % shape[1] for member in members})
        for words, members in outputs.items()
    }
    distinct = set().union(*channels.values())
    by_channel = sum(map(len, channels.values())) == len(distinct)
    parts = []
    for words, members in outputs.items():
        sizes = sets[members].sum(axis=1)
        where = ""
        if len(outputs) > 1:
            where = f"channels {_runs(channels[words])}"
            if not by_channel:
                where = f"{len(members) / total:.0%} of outputs"
        sample, channel, position = np.unravel_index(np.array(members), shape)
        # The most entries; among these, the output that is in front in a drawing.
        best = np.lexsort((position, -channel, sample, -sizes))[0]
        output = int(sample[best]), int(channel[best]), int(position[best])
        entries = int(sizes.min()), int(sizes.max())
        parts.append(Part(where, words, entries, output))
    return tuple(parts)


def _runs(numbers: Sequence[int]) -> str:
    """Sorted numbers, runs joined: "0-3, 6"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)
