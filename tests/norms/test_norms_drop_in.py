"""A norm takes the place of a torch layer: devices, types, copies, graphs."""

import pytest
import torch
from layers_made import CHANNELS as C
from layers_made import Options, every_case, same_state
from torch import nn
from torch.nn.parameter import is_lazy

from normbench.errors import RequestError
from normbench.norms import make


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def shapes_and_types(norm: nn.Module) -> dict[str, tuple[object, torch.dtype]]:
    return {
        key: (None if is_lazy(tensor) else tensor.shape, tensor.dtype)
        for key, tensor in norm.state_dict(keep_vars=True).items()
    }


# `make` creates all tensors on a device and in a type.


@every_case
def test_all_tensors_are_made_on_the_device(name: str, options: Options) -> None:
    norm = make(name, C, device="meta", **options)
    tensors = [*norm.parameters(), *norm.buffers()]
    assert all(tensor.is_meta for tensor in tensors)
    on_cpu = make(name, C, device="cpu", **options)
    assert all(tensor.device.type == "cpu" for tensor in on_cpu.buffers())
    assert shapes_and_types(norm) == shapes_and_types(on_cpu)


@every_case
def test_only_floating_point_tensors_get_the_type(name: str, options: Options) -> None:
    before = torch.get_default_dtype()
    usual = shapes_and_types(make(name, C, **options))
    for dtype in (torch.float64, torch.bfloat16):
        norm = make(name, C, dtype=dtype, **options)
        expected = {
            key: (shape, dtype if kind.is_floating_point else kind)
            for key, (shape, kind) in usual.items()
        }
        assert shapes_and_types(norm) == expected
        y = norm(torch.randn(5, C, 4, dtype=dtype))
        assert y.dtype == dtype
    assert torch.get_default_dtype() == before


def test_a_device_changes_no_random_permutation() -> None:
    made = []
    for device in (None, "cpu", torch.device("cpu")):
        torch.manual_seed(0)
        order = "random_each_layer"
        made.append(make("group_permuted", C, device=device, order=order))
    assert all(same_state(made[0], other) for other in made[1:])


def test_a_type_that_is_not_floating_point_is_refused() -> None:
    for dtype in (torch.int64, torch.complex64):
        with pytest.raises(RequestError, match=f"norm=batch: dtype={dtype} is not"):
            make("batch", C, dtype=dtype)
