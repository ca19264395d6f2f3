"""The Transformer encoder: places of its norms, and norms of queries and keys."""

import copy
import math
from typing import get_args

import numpy as np
import pytest
import torch
from conftest import SMALL
from torch import Tensor, nn

from normbench.config.composition import compose
from normbench.errors import RequestError
from normbench.norms import names
from normbench.norms.base import REGISTRY
from normbench.norms.factory import NormFactory
from normbench.tasks.networks.transformer import (
    Encoder,
    NormPosition,
    QKNormKind,
    Shape,
)
from normbench.tasks.transformer import Transformer, cosine_scale
from normbench.training.network import build, make_task

POSITIONS: tuple[NormPosition, ...] = get_args(NormPosition)
KINDS: tuple[QKNormKind, ...] = get_args(QKNormKind)
EPS = 1e-5
SHAPE = Shape(width=16, heads=2, qk_scale=3.0)
LENGTHS = torch.tensor([6, 2, 5, 1, 6, 4])
TOKENS = torch.randint(50, (6, 6), generator=torch.Generator().manual_seed(0))
MASK = torch.arange(6) < LENGTHS[:, None]

every_position = pytest.mark.parametrize("position", POSITIONS)
every_kind = pytest.mark.parametrize("kind", KINDS)


def encoder(shape: Shape, norm: str = "layer_position") -> tuple[Encoder, NormFactory]:
    """Make an encoder with norms of 6 samples, from seed 0."""
    factory = NormFactory(norm, {}, norm_batch=6)
    torch.manual_seed(0)
    model = Encoder(factory, shape, vocab_size=50, max_length=6, classes=3)
    return model, factory


def randomized(model: nn.Module) -> nn.Module:
    """Convert `model` to float64 and draw all parameters from (-0.7, 0.9)."""
    for parameter in model.double().parameters():
        nn.init.uniform_(parameter, -0.7, 0.9)
    return model


# The plain formulas, for one sample without padding tokens


class Plain:
    """The encoder as plain formulas, with the parameters `values`."""

    def __init__(self, values: dict[str, Tensor], shape: Shape) -> None:
        self.values, self.shape = values, shape

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.values[f"{name}.weight"].T + self.values[f"{name}.bias"]

    def norm(self, name: str, x: Tensor) -> Tensor:
        gain, bias = self.values[f"{name}.weight"], self.values[f"{name}.bias"]
        return standardized(x) * gain + bias

    def logits_of_attention(self, layer: str, q: Tensor, k: Tensor) -> Tensor:
        """Return the products of queries and keys (T, D) of one head: (T, T)."""
        kind, name = self.shape.qk_norm, f"{layer}.qk_norm"
        if kind == "l2":
            cosine = (q / q.norm(dim=1)[:, None]) @ (k / k.norm(dim=1)[:, None]).T
            return self.values[f"{name}.scale"] * cosine
        if kind != "none":
            q, k = (
                standardized(x) if kind == "layer" else x / root_mean_square(x)
                for x in (q, k)
            )
            q = q * self.values[f"{name}.query_gain"]
            k = k * self.values[f"{name}.key_gain"]
        return q @ k.T / math.sqrt(q.shape[1])

    def attention(self, layer: str, x: Tensor) -> Tensor:
        heads, size = self.shape.heads, self.shape.width // self.shape.heads
        columns = self.linear(f"{layer}.attention_in", x).split(size, 1)
        out = []
        for head in range(heads):
            q, k, v = columns[head::heads]
            out.append(self.logits_of_attention(layer, q, k).softmax(1) @ v)
        return self.linear(f"{layer}.attention_out", torch.cat(out, 1))

    def feed_forward(self, layer: str, x: Tensor) -> Tensor:
        hidden = nn.functional.gelu(self.linear(f"{layer}.feed_forward.0", x))
        return self.linear(f"{layer}.feed_forward.2", hidden)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Return the logits (classes,) of tokens (T,)."""
        h = self.values["token.weight"][tokens]
        h = h + self.values["position.weight"][: len(tokens)]
        for i in range(self.shape.depth):
            layer = f"layers.{i}"
            for number, f in enumerate((self.attention, self.feed_forward), 1):
                first, second = f"{layer}.norm{number}", f"{layer}.norm{number}_after"
                if self.shape.norm_position == "post":
                    h = self.norm(f"{first}.norm", h + f(layer, h))
                elif self.shape.norm_position == "pre":
                    h = h + f(layer, self.norm(f"{first}.norm", h))
                elif self.shape.norm_position == "res_post":
                    h = h + self.norm(f"{first}.norm", f(layer, h))
                else:
                    branch = f(layer, self.norm(f"{first}.norm", h))
                    h = h + self.norm(f"{second}.norm", branch)
        if self.shape.norm_position != "post":
            h = self.norm("norm.norm", h)
        return self.linear("head", h.mean(0))


def standardized(x: Tensor) -> Tensor:
    centred = x - x.mean(1)[:, None]
    return centred / root_mean_square(centred)


def root_mean_square(x: Tensor) -> Tensor:
    return ((x**2).mean(1)[:, None] + EPS).sqrt()


@every_kind
@every_position
def test_an_encoder_computes_the_plain_formulas_of_each_sample_without_pads(
    position: NormPosition, kind: QKNormKind
) -> None:
    shape = SHAPE._replace(norm_position=position, qk_norm=kind)
    model = randomized(encoder(shape)[0])
    plain = Plain(model.state_dict(), shape)
    expected = torch.stack(
        [
            plain(tokens[:length])
            for tokens, length in zip(TOKENS, LENGTHS.tolist(), strict=True)
        ]
    )
    torch.testing.assert_close(model(TOKENS, MASK), expected, rtol=0, atol=1e-10)


@every_position
def test_dropout_applies_to_what_is_added_to_the_hidden_states(
    position: NormPosition,
) -> None:
    layer = randomized(encoder(SHAPE._replace(norm_position=position))[0].layers[0])
    layer.dropout = nn.Dropout(1.0)
    h = torch.randn(6, 6, 16, generator=seeded(), dtype=torch.float64)
    expected = h
    if position == "post":
        for norm in (layer.norm1, layer.norm2):
            expected = norm(expected, MASK)
    assert torch.equal(layer(h, MASK), expected)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


# Every norm


@every_position
@pytest.mark.parametrize("name", names())
def test_every_norm_works_at_every_place(name: str, position: NormPosition) -> None:
    shape = SHAPE._replace(norm_position=position, qk_norm="rms", depth=2)
    model, factory = encoder(shape, name)
    count = {"post": 4, "pre": 5, "peri": 9, "res_post": 5}[position]
    assert len(factory.modules) == count
    model.double().train()
    model(TOKENS, MASK)  # parameters of some norms get their shape from an input
    twin = copy.deepcopy(model)
    logits = model(TOKENS, MASK)
    assert logits.shape == (6, 3)
    logits.square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert bool(parameter.grad.isfinite().all()), key
    change = (twin(TOKENS.where(MASK, 7), MASK) - logits).abs().max()
    if REGISTRY.get(name).honours_mask:
        assert change < 1e-10


@every_kind
@every_position
def test_an_encoder_works_on_the_meta_device(
    position: NormPosition, kind: QKNormKind
) -> None:
    with torch.device("meta"):
        model, _ = encoder(SHAPE._replace(norm_position=position, qk_norm=kind))
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    logits = model(TOKENS.to("meta"), MASK.to("meta"))
    assert logits.is_meta
    assert logits.shape == (6, 3)


def test_places_and_norms_of_queries_and_keys_do_not_change_the_initial_weights() -> (
    None
):
    expected = encoder(SHAPE)[0].state_dict()
    for position in POSITIONS:
        for kind in KINDS:
            shape = SHAPE._replace(norm_position=position, qk_norm=kind)
            state = encoder(shape)[0].state_dict()
            assert state.keys() >= expected.keys()
            for key, value in expected.items():
                assert torch.equal(state[key], value), (position, kind, key)


# Norms of queries and keys


@every_kind
def test_the_norm_of_queries_and_keys_does_not_depend_on_the_norm(
    kind: QKNormKind,
) -> None:
    shape = SHAPE._replace(qk_norm=kind, depth=1)
    parameters = {
        name: {
            key: tuple(value.shape)
            for key, value in encoder(shape, name)[0].named_parameters()
            if "qk_norm" in key
        }
        for name in ("batch", "none", "dyt")
    }
    gains = {"query_gain": (8,), "key_gain": (8,)}
    expected = {"none": {}, "layer": gains, "rms": gains, "l2": {"scale": ()}}[kind]
    expected = {f"layers.0.qk_norm.{key}": size for key, size in expected.items()}
    assert parameters == dict.fromkeys(parameters, expected)


@pytest.mark.parametrize("kind", ["layer", "rms", "l2"])
def test_the_size_of_queries_and_keys_does_not_matter(kind: QKNormKind) -> None:
    model = encoder(SHAPE._replace(qk_norm=kind))[0].double()
    expected = model(TOKENS, MASK)
    for layer in model.layers:
        layer.attention_in.weight.data[:32] *= 1000
        layer.attention_in.bias.data[:32] *= 1000
    torch.testing.assert_close(model(TOKENS, MASK), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["layer", "rms", "l2"])
def test_queries_and_keys_are_normalized_in_float32(
    kind: QKNormKind, dtype: torch.dtype
) -> None:
    model, _ = encoder(SHAPE._replace(qk_norm=kind))
    norm = model.layers[0].qk_norm
    q, k = torch.randn(2, 6, 2, 6, 8, generator=seeded()).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = norm(q, k)
    for result, expected in zip(narrow, norm(q.float(), k.float()), strict=True):
        assert result.dtype == dtype
        assert torch.equal(result, expected.to(dtype))


@pytest.mark.slow
@every_kind
@every_position
def test_an_encoder_compiles_to_one_graph(
    position: NormPosition, kind: QKNormKind
) -> None:
    model, _ = encoder(SHAPE._replace(norm_position=position, qk_norm=kind))
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(TOKENS, MASK), model(TOKENS, MASK))


def test_the_scale_of_l2_starts_at_the_value_of_its_paper() -> None:
    config = compose([*SMALL["transformer"], "task.qk_norm=l2"])
    task = make_task(config, torch.device("cpu"))
    assert isinstance(task, Transformer)
    lengths = task.lengths[task.splits["train"]].numpy()
    longest = np.percentile(lengths, 97.5, method="inverted_cdf")
    model = build(config, task).model
    assert isinstance(model, Encoder)
    scale = model.layers[0].qk_norm.scale.item()
    assert scale == pytest.approx(math.log2(longest**2 - longest))
    assert cosine_scale(torch.tensor([1, 1, 1])) == 1
    assert cosine_scale(torch.arange(1, 41)) == math.log2(39 * 38)


def test_a_layer_norm_of_queries_of_one_value_is_refused() -> None:
    config = compose([*SMALL["transformer"], "task.qk_norm=layer", "task.heads=16"])
    with pytest.raises(RequestError, match=r"heads of at least 2 values.*use fewer"):
        make_task(config, torch.device("cpu"))
