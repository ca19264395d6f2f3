"""The pictures of a style run."""

from dataclasses import replace

import pytest
import torch
from photographs_made import SIDE, random_photographs, with_styles

from normbench.norms import NormFactory
from normbench.norms.base import REGISTRY as NORMS
from normbench.tasks.style import Style

CPU = torch.device("cpu")


@pytest.mark.parametrize("styles", [1, 3])
def test_pictures_without_photographs_show_test_crops_above_outputs(
    styles: int,
) -> None:
    task = Style(with_styles(random_photographs(), styles), CPU, width=4, blocks=1)
    torch.manual_seed(0)
    factory = NormFactory("instance", NORMS.options("instance", {}), norm_batch=4)
    model = task.build(factory).eval()
    (grid,) = task.pictures(model).values()
    test = task.splits["test"]
    assert grid.shape == (3, 2 * SIDE, (len(test) + styles) * SIDE)
    assert grid.dtype == torch.float32
    assert grid.min() >= 0 and grid.max() <= 1
    assert torch.equal(grid[:, :SIDE, :SIDE], task.crops[test[0]])
    with torch.no_grad():
        output = model(*task.inputs(test))
    torch.testing.assert_close(grid[:, SIDE:, SIDE : 2 * SIDE], output[1])


@pytest.mark.parametrize("norm", ["instance", "layer_shape"])
def test_pictures_show_held_out_photographs_in_turn_in_each_style(norm: str) -> None:
    """A norm with parameters for each position gets the centres, in its own size."""
    held_out = torch.rand(3, 3, 48, 48)
    data = replace(with_styles(random_photographs(), 2), shown=held_out)
    task = Style(data, CPU, width=4, blocks=1)
    model = task.build(NormFactory(norm, NORMS.options(norm, {}), norm_batch=4)).eval()
    with torch.no_grad():
        model(*task.inputs(task.splits["test"]))
    (grid,) = task.pictures(model).values()
    side, edge = (48, 0) if norm == "instance" else (SIDE, (48 - SIDE) // 2)
    assert grid.shape == (3, 2 * side, 5 * side)
    shown = held_out[..., edge : edge + side, edge : edge + side]
    assert torch.equal(grid[:, :side, : 3 * side], torch.cat([*shown], 2))
    with torch.no_grad():
        output = model(shown, torch.tensor([0, 1, 0]))
    torch.testing.assert_close(
        grid[:, side:, : 3 * side], torch.cat([*output], 2), check_stride=False
    )
