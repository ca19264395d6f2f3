"""A norm takes the place of a torch layer: devices, types, copies, graphs."""

import io
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy

import pytest
import torch
from layers_made import CHANNELS as C
from layers_made import (
    Options,
    assert_close,
    every_case,
    every_norm,
    made,
    once,
    same_state,
    sample,
)
from torch import nn
from torch.nn.parameter import is_lazy

from normbench.errors import RequestError
from normbench.norms import REGISTRY, Norm, make, names


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


# Copies and saved states.


@every_case
def test_a_pickled_norm_is_the_norm(name: str, options: Options) -> None:
    norm, x = made(name, (4, C, 5), **options), sample(4, C, 5)
    norm(
        x.clone().requires_grad_()
    ).sum().backward()  # leaves a penalty, gradients and new statistics
    for twin in (pickle.loads(pickle.dumps(norm)), deepcopy(norm)):
        assert same_state(twin, norm)
        assert torch.equal(once(twin, x), once(norm, x))
        assert torch.equal(once(twin.eval(), x), once(deepcopy(norm).eval(), x))
        twin.train()
    file = io.BytesIO()
    torch.save(norm.state_dict(), file)
    file.seek(0)
    loaded = make(name, C, dtype=torch.float64, **options)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert same_state(loaded, norm)


LAYERS: dict[str, Callable[[Norm], nn.Module]] = {
    "BatchNorm1d": lambda norm: nn.BatchNorm1d(C),
    "InstanceNorm1d": lambda norm: nn.InstanceNorm1d(C, affine=True),
    "GroupNorm": lambda norm: nn.GroupNorm(getattr(norm, "num_groups", 1), C),
    "LayerNorm": lambda norm: nn.LayerNorm(norm.weight.shape),
    "RMSNorm": lambda norm: nn.RMSNorm(C),
}
"""torch's layers by the names that the docstring of a norm's module has."""


def equal_layers(name: str) -> list[str]:
    """Return the layers of torch in the sentence that says what a norm equals."""
    text = " ".join(str(sys.modules[REGISTRY.get(name).__module__].__doc__).split())
    sentence = re.search(r"[Ee]quals torch\.nn\..*?\.(?= |$)", text)
    return re.findall(r"torch\.nn\.(\w+)", sentence.group()) if sentence else []


@every_norm
def test_state_dicts_go_to_the_equal_layer_of_torch_and_back(name: str) -> None:
    layers = equal_layers(name)
    if len(layers) != 1:
        pytest.skip("it does not say that it equals a single layer of torch")
    norm = made(name, (4, C, 5)).float()
    theirs = LAYERS[layers[0]](norm)
    theirs.load_state_dict(norm.state_dict())
    assert same_state(norm, theirs)
    back = make(name, C)
    back.load_state_dict(theirs.state_dict())
    assert same_state(norm, back)


def test_the_norms_that_equal_a_layer_of_torch_say_so() -> None:
    single = {name for name in names() if len(equal_layers(name)) == 1}
    assert single >= {"batch", "batch_masked", "group", "instance", "layer_position"}
    assert single >= {"layer_sample", "layer_shape", "rms"}


# Graphs.


MASK = torch.arange(6) < torch.tensor([[3], [6], [4], [5]])
CONDITION = torch.tensor([2, 0, 3, 1])


@pytest.fixture
def _compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@every_case
@pytest.mark.usefixtures("_compiler")
def test_evaluation_compiles_to_one_graph(name: str, options: Options) -> None:
    norm, x = made(name, (4, C, 6), **options).eval(), sample(4, C, 6)
    compiled = torch.compile(deepcopy(norm), fullgraph=True, backend="aot_eager")
    for arguments in ([], [MASK, CONDITION]):
        # The compiled norm has the permutations that the norm itself has.
        assert_close(compiled(x, *arguments), norm(x, *arguments), len(arguments))
    empty = compiled(x[:0])
    assert empty.shape == (0, C, 6)


@pytest.mark.slow
@every_case
@pytest.mark.usefixtures("_compiler")
def test_evaluation_is_exported(name: str, options: Options) -> None:
    """With all arguments, and for inputs with any number of samples and positions."""
    norm, x = made(name, (4, C, 6), **options).eval(), sample(4, C, 6)
    arguments = (x, MASK, CONDITION)
    exported = torch.export.export(deepcopy(norm), arguments).module()
    assert_close(exported(*arguments), once(norm, *arguments))

    dynamic = {0: torch.export.Dim("samples")}
    other = sample(7, C, 6)
    if not norm.fixed_spatial:
        dynamic[2] = torch.export.Dim("positions")
        other = sample(7, C, 9)
    shapes = (dynamic,)
    exported = torch.export.export(deepcopy(norm), (x,), dynamic_shapes=shapes).module()
    assert_close(exported(other), once(norm, other))


@pytest.mark.slow
@every_case
@pytest.mark.usefixtures("_compiler")
def test_evaluation_is_exported_in_16_bits(name: str, options: Options) -> None:
    norm, x = made(name, (4, C, 6), **options).float().eval(), sample(4, C, 6)
    narrow = x.bfloat16()
    exported = torch.export.export(deepcopy(norm), (narrow,)).module()
    assert_close(exported(narrow), once(norm, narrow))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the ONNX packages
@every_case
def test_onnx_runtime_computes_the_same(name: str, options: Options) -> None:
    """Install onnx, onnxscript and onnxruntime by hand to run this test."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    norm = made(name, (4, C, 6), **options).float().eval()
    arguments = (sample(4, C, 6).float(), MASK, CONDITION)
    program = torch.onnx.export(deepcopy(norm), arguments, dynamo=True, verbose=False)
    assert program is not None
    file = io.BytesIO()
    program.save(file)
    session = runtime.InferenceSession(
        file.getvalue(), providers=["CPUExecutionProvider"]
    )
    inputs = zip(session.get_inputs(), arguments, strict=True)
    (y,) = session.run(None, {node.name: value.numpy() for node, value in inputs})
    expected = once(norm, *arguments)
    torch.testing.assert_close(torch.tensor(y), expected, rtol=1e-4, atol=1e-5)
