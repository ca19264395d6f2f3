"""Every norm on the meta device, compiled, and in the layout of the Transformer."""

from copy import deepcopy

import pytest
import torch
from layers_made import (
    CHANNELS as C,
)
from layers_made import (
    MODES,
    assert_close,
    every_case,
    made,
    padded,
    results,
    sample,
)

from normbench.norms import make


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@every_case
def test_works_on_the_meta_device(name, options):
    with torch.device("meta"):
        norm = make(name, C, **options)
        mask = torch.ones(5, 7, dtype=torch.bool)
        condition = torch.zeros(5, dtype=torch.int64)
        y = norm(torch.randn(5, C, 7), mask, condition)
    assert y.shape == (5, C, 7) and y.is_meta
    assert all(t.is_meta for t in norm.state_dict().values())


def test_per_token_norms_answer_the_transformer_without_a_copy():
    for name in ("layer_position", "rms", "dyt", "derf", "scale"):
        y = make(name, C)(torch.randn(5, 7, C).transpose(1, 2))
        assert y.shape == (5, C, 7)
        assert y.transpose(1, 2).is_contiguous(), name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, about its own code
@every_case
@pytest.mark.parametrize("training", MODES)
def test_compiled_it_computes_the_same(name, options, training):
    shape = (4, C, 6)
    norm, mask = made(name, shape, **options).train(training), padded(shape)
    twin = deepcopy(norm)
    torch._dynamo.reset()
    # Machine code takes two seconds; the training pass has all that evaluation has.
    compiled = torch.compile(norm, backend="inductor" if training else "aot_eager")
    for _ in range(2):
        x = sample(*shape)
        assert_close(results(compiled, x, mask), results(twin, x, mask))
        assert_close(list(norm.buffers()), list(twin.buffers()))
