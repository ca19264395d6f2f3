"""Footprints and invariances of norms: known values, and what the norms declare."""

import re
from collections import Counter
from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from normbench.norms import REGISTRY, Norm, make, names
from normbench.norms.measure.dependence import describe
from normbench.norms.measure.footprint import (
    Footprint,
    footprints,
    same_function,
)
from normbench.norms.measure.invariance import Change, Invariance, invariances
from normbench.norms.measure.portrait import NormChoice, fitting
from normbench.norms.measure.subject import Mode, subject
from normbench.report.figures.panel import Panel

SVG = "{http://www.w3.org/2000/svg}"
every_norm = pytest.mark.parametrize("name", names())


def small(name: str, masked: bool = False) -> tuple[Norm, tuple[int, ...]]:
    """A norm, and the shape of an input on which its footprint takes little time."""
    choice = NormChoice(name, name, REGISTRY.options(name, {}))
    channels = fitting([choice])
    return choice.make(channels), (2, channels, *((5,) if masked else (2, 3)))


@cache
def measured(name: str, masked: bool = False) -> dict[Mode, Footprint]:
    norm, shape = small(name, masked)
    return {one.mode: one for one in footprints(norm, shape, masked)}


def general(words: str) -> str:
    """Measured words as a class declares them: no numbers, of channels or of parts."""
    words = re.sub(r"channels [\d, -]+: ", "", words)
    words = re.sub(r"(group|window) of \d+ channels", r"\1 of channels", words)
    return words


def parts(words: str) -> set[str]:
    return set(re.split(r"; | \+ ", words))


# What is known.


@pytest.mark.parametrize(
    ("name", "words", "entries"),
    [
        ("batch", "all samples, one channel, all positions", 64),
        ("layer_sample", "one sample, all channels, all positions", 128),
        ("instance", "one sample, one channel, all positions", 16),
        ("layer_position", "one sample, all channels, one position", 8),
        ("group", "one sample, one group of 4 channels, all positions", 64),
        ("none", "one sample, one channel, one position", 1),
    ],
)
def test_known_footprints(name, words, entries):
    norm = make(name, 8, **({"num_groups": 2} if name == "group" else {}))
    before, stream = deepcopy(norm.state_dict()), torch.random.get_rng_state()
    train, *_ = footprints(norm, (4, 8, 4, 4))
    for measured in (train.value, train.gradient):
        assert measured.words == words
        assert measured.count == str(entries)
        assert (measured.entries.sum((3, 4, 5)) == entries).all()
    assert torch.equal(torch.random.get_rng_state(), stream)
    assert all(torch.equal(norm.state_dict()[key], before[key]) for key in before)


def test_masked_statistics_stop_at_the_mask():
    masked, plain = (
        measured(name, True)["train"] for name in ("batch_masked", "batch")
    )
    assert masked.value.words == "all samples, one channel, all real positions"
    assert plain.value.words == "all samples, one channel, all positions"


# What norms declare.


@every_norm
def test_declarations_are_those_measured(name):
    norm, shape = small(name)
    by_mode = measured(name)
    training = [one.either for mode, one in by_mode.items() if mode is not Mode.eval]
    entries = np.logical_or.reduce([one.entries for one in training])
    assert parts(general(describe(entries).words)) == parts(norm.axes)
    assert norm.uses_other_samples == any("all samples" in d.words for d in training)
    assert "all samples" not in by_mode[Mode.eval].either.words
    assert "irregular" not in by_mode[Mode.eval].either.words
    assert norm.differs_in_eval != same_function(norm, shape, Mode.train, Mode.eval)
    if norm.exact_gradient:
        assert all(one.agree for one in by_mode.values())
    if not norm.fixed_spatial:
        masked = [one.either.words for one in measured(name, True).values()]
        assert not any("irregular" in words for words in masked), masked
        assert norm.honours_mask != any("all positions" in words for words in masked)


@every_norm
def test_declared_inexact_gradients_are_inexact_in_some_mode(name):
    norm, shape = small(name)
    exact = []
    with torch.random.fork_rng(devices=[]):
        for mode in Mode:
            one = subject(norm, shape, mode, seed=0)
            x = one.x.requires_grad_()
            options = {"fast_mode": True, "raise_exception": False}
            exact.append(torch.autograd.gradcheck(one, x, **options))
    assert all(exact) == norm.exact_gradient


# What hides: gradients that are stopped or made up, outputs that are dead, dice.


class Toy(Norm, name="toy-footprint"):
    """A norm of one statistic, made as the test asks."""

    def __init__(self, kind: str, channels: int = 4) -> None:
        super().__init__(channels)
        self.kind = kind
        self.register_buffer("forwards", torch.tensor(0))

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        mean = x.mean((0, 2), keepdim=True)
        self.forwards.add_(1)
        if self.kind == "stopped":
            return x - mean.detach()
        if self.kind == "rectified":
            return (x - mean).relu()
        if self.kind == "warm-up":
            return x - mean if int(self.forwards) == 1 else x
        if self.kind == "dice":
            return x + torch.randn(x.shape)
        return x + 0 * mean


# Only `names()` of the package are tested: a toy is no norm of the catalogue.
REGISTRY._classes.pop("toy-footprint")

BATCH, OWN = (
    "all samples, one channel, all positions",
    "one sample, one channel, one pos",
)


@pytest.mark.parametrize(
    ("kind", "value", "gradient"),
    [
        ("stopped", BATCH, OWN),
        ("rectified", BATCH, BATCH),
        ("warm-up", OWN, OWN),
        ("dice", OWN, OWN),
        ("none", OWN, OWN),
    ],
)
def test_value_and_gradient_are_measured_apart(kind, value, gradient):
    train = footprints(Toy(kind), (3, 4, 5))[0]
    assert train.value.words.startswith(value)
    assert train.gradient.words.startswith(gradient)
    assert train.agree == (value == gradient)


def test_a_warm_up_has_a_footprint_of_its_own():
    found = {one.mode: one for one in footprints(Toy("warm-up"), (3, 4, 5))}
    assert found[Mode.first].value.words == BATCH
    assert Mode.first not in {one.mode for one in footprints(Toy("dice"), (3, 4, 5))}


def test_words_of_outputs_that_differ():
    entries = np.zeros((2, 4, 3, 2, 4, 3), dtype=bool)
    for n, c, p in np.ndindex(2, 4, 3):
        if c < 2:
            entries[n, c, p, n, :2] = True
        else:
            entries[n, c, p, :, c] = True
    found = describe(entries)
    assert found.words == (
        "channels 0-1: one sample, one group of 2 channels, all positions; "
        "channels 2-3: all samples, one channel, all positions"
    )
    assert found.count == "6"
    assert [part.output for part in found.parts] == [(0, 1, 0), (0, 3, 0)]
    entries[0, 0, 0, 1, 3, 2] = True
    assert "irregular" in describe(entries).words


# Invariances, by algebra.

NOTHING = {"order", "pads"}
GLOBAL = {"order", "gain", "bias", "weights"}
PER_CHANNEL = GLOBAL | {"channel gain", "channel bias"}


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("none", NOTHING),
        ("affine", NOTHING),
        ("instance", PER_CHANNEL),
        ("batch", PER_CHANNEL),
        ("batch_masked", PER_CHANNEL | {"pads"}),
        ("layer_sample", GLOBAL),
        ("group", GLOBAL),
        ("layer_position", GLOBAL | {"pads"}),
        ("rms", (GLOBAL | {"pads"}) - {"bias"}),
    ],
)
def test_invariances_in_training(name, holds):
    measured = invariances(make(name, 16), (4, 16, 6, 6))
    assert {one.to.value for one in measured if one.holds_in_train} == holds
    changes = [one.train for one in measured]
    assert all(change is not None for change in changes)
    assert all(change < 1e-12 or change > 1e-2 for change in changes), changes


def test_evaluation_with_running_statistics_is_affine():
    measured = {one.to: one for one in invariances(make("batch", 8), (4, 8, 9))}
    assert {to.value for to, one in measured.items() if one.holds_in_eval} == NOTHING
    assert measured[Change.gain].holds_in_train


def test_pads_are_not_measured_for_a_norm_with_one_shape():
    *_, pads = invariances(make("layer_shape", 8), (4, 8, 9))
    assert pads == Invariance(Change.pads, None, None)
    assert pads.holds_in_train is None


def test_what_only_the_value_or_the_gradient_depends_on_has_its_own_colour():
    train = footprints(Toy("stopped", 2), (2, 2, 3))[0]
    one = Panel(
        "toy", "", (3,), (0, 1, 0), train.value.entries[0, 1, 0],
        train.gradient.entries[0, 1, 0],
    )  # fmt: skip
    assert Counter(one.kinds().ravel().tolist()) == {"none": 6, "value": 5, "output": 1}
