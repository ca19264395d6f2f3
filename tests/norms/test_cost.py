"""The benchmark of norms: what it compares is the same function, and it says so."""

import json

import pytest
import torch
from conftest import Command

from normbench.norms import make, names
from normbench.norms.measure.cost import SHAPES, measure, peak_kib, reference, step

CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", names())
def test_a_reference_computes_the_same(name: str, shape: str) -> None:
    size = SHAPES[shape]
    found = reference(name, size, {})
    if found is None:
        return
    x = torch.randn(size)
    ours = make(name, size[1]).train()(x)
    theirs = found.layer.train()(x.transpose(1, 2) if found.tokens_last else x)
    theirs = theirs.transpose(1, 2) if found.tokens_last else theirs
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_most_norms_that_wrap_a_kernel_have_a_reference() -> None:
    found = [name for name in names() if reference(name, SHAPES["image"], {})]
    assert {"batch", "layer_sample", "layer_shape", "group", "rms"} <= set(found)


def test_a_cost_has_times_a_ratio_and_memory() -> None:
    cost = measure("group", "style", {}, CPU, blocks=3)
    assert cost.microseconds is not None and cost.microseconds > 0
    assert cost.reference_microseconds is not None and cost.reference_microseconds > 0
    assert cost.ratio is not None and cost.ratio > 0
    output = 4 * 4 * 32 * 32 * 32 / 1024
    assert cost.peak_kib is not None
    assert output <= cost.peak_kib <= 4 * output


def test_peak_memory_counts_what_is_held_at_once() -> None:
    x = torch.randn(1024, 256)  # 1 MiB

    def chain(x: torch.Tensor) -> torch.Tensor:
        for _ in range(5):
            x = x + 1  # saves nothing for the backward pass
        return x

    assert peak_kib(step(chain, x), CPU) < 3.5 * 1024
    keeps = peak_kib(step(lambda x: x.exp().exp().exp().exp(), x * 0), CPU)
    assert keeps > 3.5 * 1024


@pytest.mark.slow
def test_the_command_prints_rows_of_named_norms(command: Command) -> None:
    options = ["--shape", "style", "--blocks", "3", "--json"]
    printed = command("bench", "norms", "group", "none", *options)
    rows = json.loads(printed.stdout)
    assert [(row["norm"], row["shape"]) for row in rows] == [
        ("group", "style"),
        ("none", "style"),
    ]
    assert rows[0]["ratio"] > 0
    assert rows[1]["reference"] is None
    for wrong in (["grop"], ["group", "--shape", "cube"]):
        told = command("bench", "norms", *wrong)
        assert told.returncode == 2
        assert "unknown" in told.stderr
