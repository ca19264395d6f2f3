"""Inputs, names and options that norms refuse, and the yaml files of their options."""

import re
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import yaml
from layers_made import (
    CHANNELS as C,
)
from layers_made import (
    MODES,
    every_case,
    every_norm,
    made,
    once,
    results,
    same_state,
    sample,
)
from torch import Tensor
from torch.nn.parameter import is_lazy

from normbench.errors import Incompatible, RequestError
from normbench.norms import REGISTRY, make, names

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "norm").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# Bad input.


@every_case
def test_never_takes_a_statistic_of_one_value_in_silence(name, options):
    """It is refused, or the output still tells inputs apart."""
    if "num_groups" in REGISTRY.options(name, {}):
        options = options | {"num_groups": 1}
    try:
        norm = make(name, 1, **options)
    except Incompatible:
        norm = make(name, 2, **options)
    for training in MODES:
        norm.train(training)
        for spatial in ((), (1,), (1, 1)):
            inputs = [
                torch.full((1, norm.channels, *spatial), v) for v in (1.0, 2.0, 3.0)
            ]
            try:
                a, b, c = (once(norm, x) for x in inputs)
            except Incompatible as reason:
                assert re.search(rf"norm={name} .*\(1, .*1;", str(reason))
                continue
            for pair in ((a, b), (b, c)):
                assert not torch.allclose(*pair, rtol=1e-2, atol=1e-3), spatial


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        ("instance", (3, 8, 1, 1), {}),
        ("instance", (3, 8), {}),
        ("conditional_instance", (3, 8, 1), {}),
        ("filter_response", (3, 8, 1), {}),
        ("group", (3, 8, 1), {}),
        ("group_permuted", (3, 8, 1), {}),
        ("evonorm_s0", (3, 8), {}),
        ("batch_group", (4, 8, 1), {"num_groups": 8}),
        ("batch_instance", (4, 8, 1), {}),
        ("ibn", (4, 8), {}),
        ("switchable", (4, 8, 1, 1), {}),
        ("evonorm_b0", (4, 8), {}),
        # Of the batch: refused in training only.
        ("batch", (1, 8, 1, 1), None),
        ("batch_masked", (1, 8, 1), None),
        ("batch_renorm", (1, 8, 1), None),
        ("batch_regularized", (1, 8), None),
        ("power", (1, 8, 1, 1), None),
        ("extended_batch", (1, 8), None),
    ],
)
def test_a_statistic_of_one_value_is_refused(name, shape, options):
    norm = make(name, 8, **(options or {}))
    before = deepcopy(norm)
    for training in MODES:
        norm.train(training)
        if options is None and not training:
            assert norm(torch.ones(shape)).isfinite().all()
        else:
            with pytest.raises(Incompatible, match=f"norm={name} .* gives it 1;"):
                norm(torch.ones(shape))
        assert same_state(norm, before)


@pytest.mark.parametrize("name", ["batch_masked", "power", "batch_regularized"])
def test_a_statistic_of_one_real_value_is_refused(name):
    norm = make(name, C)
    before = deepcopy(norm)
    for real in (0, 1):
        mask = torch.arange(4)[None] < real
        with pytest.raises(Incompatible, match=rf"{name} .* \(1, 4\) has {real};"):
            norm(torch.randn(1, C, 4), mask)
        assert same_state(norm, before)


def wrong(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(shape, dtype=dtype)


X = wrong((5, C, 7))
BAD_INPUTS: list[tuple[list[Tensor | None], str]] = [
    ([wrong((5, C, 7), torch.int64)], r"\(5, 16, 7\) and type torch.int64; .*float"),
    ([wrong((5, C + 1, 7))], r"input of shape \(5, 17, 7\) .* \(N, 16, \.\.\.\)"),
    ([wrong((C,))], r"\(16,\).* batch axis .* missing: use x\.unsqueeze\(0\)"),
    ([wrong((C, 7))], r"\(16, 7\).* batch axis .* missing: use x\.unsqueeze\(0\)"),
    ([wrong((C, 4, 3))], r"\(16, 4, 3\).* missing: use x\.unsqueeze\(0\)"),
    ([wrong((5,))], r"\(5,\) and type torch.float32; .* floating point$"),
    ([wrong(())], r"\(\) and type torch.float32; .* floating point$"),
    ([X, wrong((5, 6), torch.bool)], r"mask .*\(5, 6\).* \(5, 7\)"),
    ([X, wrong((1, 7), torch.bool)], r"mask .*\(1, 7\).* \(5, 7\)"),
    ([X, wrong((5, 7))], r"mask .*torch.float32; .*\(5, 7\), bool"),
    ([X, wrong((5, 7), torch.int64)], r"mask .*torch.int64; .*bool"),
    ([X, None, wrong((4,), torch.int64)], r"condition .*\(5,\), int"),
    ([X, None, wrong((5,))], r"condition .*float32; .*\(5,\), int64"),
]


@every_norm
def test_bad_input_is_refused_with_norm_argument_and_shape(name):
    norm = make(name, C)
    before = deepcopy(norm)
    for arguments, message in BAD_INPUTS:
        with pytest.raises(RequestError, match=f"norm={name} .*{message}"):
            norm(*arguments)
    if not any(is_lazy(parameter) for parameter in norm.parameters()):
        assert same_state(norm, before)


@every_case
def test_a_fully_masked_batch_is_refused_or_stays_finite(name, options):
    mask = torch.zeros(3, 5, dtype=torch.bool)
    for training in MODES:
        norm = made(name, (3, C, 5), **options).train(training)
        before = deepcopy(norm)
        try:
            tensors = results(norm, sample(3, C, 5), mask)
        except Incompatible as reason:
            assert f"norm={name} " in str(reason)
            assert same_state(norm, before)
        else:
            assert all(t.isfinite().all() for t in (*tensors, *norm.buffers()))


def test_a_mask_for_an_input_without_values_is_checked() -> None:
    with pytest.raises(RequestError, match=r"needs \(0, 7\), bool"):
        make("batch", C)(torch.zeros(0, C, 7), torch.ones(1, 7, dtype=torch.bool))


# Names, options and their files in configs/norm.


def test_a_norm_is_made_by_name():
    norm = make("group", channels=32, num_groups=4)
    assert (norm.name, norm.channels, norm.num_groups) == ("group", 32, 4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("grup", {}, "norm.name=grup is unknown; did you mean 'group'"),
        ("SyncBatchNorm", {}, "unknown; did you mean 'batch'"),
        ("mad", {}, "unknown; a class of your own needs its module, --module MODULE;"),
        ("group", {"groups": 4}, "norm.groups is not an option .* 'num_groups'"),
        ("group", {"num_groups": 0}, "norm.num_groups=0: .*a positive integer or auto"),
        ("group", {"num_groups": 2.0}, "norm.num_groups=2.0: "),
        ("batch", {"eps": 0.0}, "norm.eps=0.0: .*greater than 0"),
        ("batch", {"momentum": 1.5}, "norm.momentum=1.5: .*less than or equal to 1"),
        (
            "group",
            {"num_groups": 5},
            "num_groups=5 does not divide 12 channels; these do: 1, 2, 3, 4, 6, 12",
        ),
    ],
)
def test_a_wrong_request_is_refused_with_what_is_right(name, options, message):
    with pytest.raises(RequestError, match=message):
        make(name, 12, **options)


def test_every_norm_has_a_yaml():
    assert set(names()) <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_yaml_repeats_the_defaults_and_comments_each(path):
    first, *lines = path.read_text().splitlines()
    assert first.startswith("# ")
    content = yaml.safe_load(path.read_text())
    name = content.pop("name")
    assert name == path.stem
    assert all("  # " in line for line in lines if not line.startswith("name:"))
    aliased = ["layer_sample", "layer_position"] if name == "layer" else [name]
    for real in aliased:
        assert content == REGISTRY.options(real, {})
        for year in re.findall(r"\d{4}", REGISTRY.get(real).source):
            assert year in first
