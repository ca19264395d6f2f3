"""The benchmark of norms: what it compares is the same function, and it says so."""

import json

import pytest
import torch
from conftest import Command

from normbench.norms import make, names
from normbench.norms.measure.cost import SHAPES, measure, peak_kib, reference, step

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", names())
def test_a_reference_computes_the_same(name: str) -> None:
    for shape, size in SHAPES.items():
        other = reference(name, size, {})
        if other is not None:
            x = torch.randn(size)
            ours = make(name, size[1]).train()(x)
            last = other.channels_last
            theirs = other.layer.train()(x.transpose(1, 2) if last else x)
            theirs = theirs.transpose(1, 2) if last else theirs
            assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4), shape


def test_most_norms_that_wrap_a_kernel_have_a_reference() -> None:
    having = {name for name in names() if reference(name, SHAPES["image"], {})}
    assert {"batch", "layer_sample", "layer_shape", "group", "rms"} <= having


def test_a_cost_has_times_a_ratio_and_memory() -> None:
    cost = measure("group", "style", {}, CPU, blocks=3)
    assert cost.microseconds is not None and cost.microseconds > 0
    assert cost.reference_microseconds is not None and cost.reference_microseconds > 0
    assert cost.ratio is not None and cost.ratio > 0
    output = 4 * 4 * 32 * 32 * 32 / 1024
    assert cost.peak_kib is not None
    assert output <= cost.peak_kib <= 4 * output


def test_the_ghost_ratio_is_that_of_norms_that_use_other_samples() -> None:
    for name in ("batch", "evonorm_b0", "group"):
        cost = measure(name, "style", {}, CPU, blocks=3)
        assert (cost.ghost_ratio is None) == (name == "group")
        assert cost.ghost_ratio is None or cost.ghost_ratio > 0


def test_peak_memory_counts_what_is_held_at_once() -> None:
    x = torch.randn(1024, 256)  # 1 MiB

    def chain(x: torch.Tensor) -> torch.Tensor:
        for _ in range(5):
            x = x + 1  # saves nothing for the backward pass
        return x

    assert peak_kib(step(chain, x), CPU) < 3.5 * 1024
    keeps = peak_kib(step(lambda x: x.exp().exp().exp().exp(), x * 0), CPU)
    assert keeps > 3.5 * 1024


def test_the_command_prints_rows_of_named_norms(invoke: Command) -> None:
    options = ["--shape", "style", "--blocks", "3", "--json"]
    rows = json.loads(invoke("bench", "norms", "group", "none", *options).stdout)
    cases = [(row["norm"], row["shape"]) for row in rows]
    assert cases == [("group", "style"), ("none", "style")]
    assert rows[0]["ratio"] > 0
    assert rows[1]["reference"] is None
    assert rows[0]["ghost_ratio"] is None
    for wrong in (["grop"], ["group", "--shape", "cube"]):
        done = invoke("bench", "norms", *wrong)
        assert done.returncode == 2
        assert "unknown" in done.stderr
