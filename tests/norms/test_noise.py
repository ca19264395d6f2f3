"""Noise after norms: its formulas, its size, and what it must not change."""

import copy
from pathlib import Path

import pytest
import torch
from interrupted_made import content, small
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.config.titles import title
from normbench.errors import Incompatible, RequestError, Stopped
from normbench.norms import Norm, NormFactory, make, names, noise
from normbench.norms.noise import Noise, NoisyNorm
from normbench.records.store import Results
from normbench.training.experiment import run_one
from normbench.training.network import incompatible

C = 8


def statistic(shift: float, scale: float, seed: int = 0) -> Noise:
    return Noise("statistic", shift, scale, 0.0, seed)


def activation(shift: float, scale: float, spread: float) -> Noise:
    return Noise("activation", shift, scale, spread, 0)


def layer(name: str, noise: Noise | None, norm_batch: int, **options: int) -> nn.Module:
    module = NormFactory(name, {}, norm_batch, noise=noise, **options)(C)
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            if not is_lazy(parameter) and parameter.shape == (C,):
                parameter.copy_(torch.linspace(0.5, 2, C) + number)
    return module


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def draws(module: nn.Module, x: Tensor, forwards: int) -> Tensor:
    """Return the outputs of `forwards` training forwards: (forwards, *x.shape)."""
    return torch.stack([module(x).detach() for _ in range(forwards)])


def test_statistic_noise_is_noise_of_the_statistics_of_a_batch_norm() -> None:
    """Solve the output for the statistics that would give it, and compare the sizes."""
    x, shift, scale = 3 + 2 * normal(32, C, 5, 5), 0.2, 0.1
    noisy = layer("batch", statistic(shift, scale), norm_batch=32)
    weight, bias = noisy.norm.norm.weight.detach(), noisy.norm.norm.bias.detach()
    var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    y = (draws(noisy, x, 400).movedim(2, -1) - bias) / weight
    # y = (x - used_mean) / used_deviation in every channel of every forward.
    flat, values = y.flatten(1, 3), x.movedim(1, -1).flatten(0, 2)
    deviation = values.std(0) / flat.std(1)
    used_mean = values.mean(0) - flat.mean(1) * deviation
    log_ratio = (deviation / (var + 1e-5).sqrt()).log()
    offset = (used_mean - mean) / deviation
    # 3,200 numbers: the relative standard error of a deviation is 1.3 %.
    assert log_ratio.std().item() == pytest.approx(scale, rel=0.06)
    assert offset.std().item() == pytest.approx(shift, rel=0.06)
    assert abs(log_ratio.mean()) < 4 * scale / 3200**0.5
    assert abs(offset.mean()) < 4 * shift / 3200**0.5
    residual = flat - (values - used_mean[:, None]) / deviation[:, None]
    assert residual.abs().max() < 1e-3


def test_samples_of_one_norm_batch_share_statistic_noise() -> None:
    x = normal(8, C, 3).expand(2, 8, C, 3).flatten(0, 1)  # the same samples twice
    for name in ("batch", "group"):
        y = layer(name, statistic(0.3, 0.2), norm_batch=4)(x)
        clean = layer(name, None, norm_batch=4)(x)
        first, last = y.view(4, 4, C, 3), clean.view(4, 4, C, 3)
        # The change of a channel in a norm batch is one line: slope and intercept.
        for part in range(4):
            a, b = last[part].transpose(0, 1).flatten(1), first[part].transpose(0, 1)
            a, b = a.detach(), b.flatten(1).detach()
            slope = ((a - a.mean(1, True)) * b).sum(1) / a.var(1, correction=0) / 12
            line = (a - a.mean(1, True)) * slope[:, None] + b.mean(1, True)
            assert torch.allclose(line, b, atol=1e-4)
        assert not torch.allclose(first[0], first[2], atol=0.01)  # the same samples
        assert not torch.allclose(y, clean, atol=0.01)


def test_activation_noise_has_the_distribution_of_the_paper() -> None:
    shift, scale, spread = 0.5, 0.25, 0.1
    noisy = layer("none", activation(shift, scale, spread), 4)
    x = torch.cat([torch.zeros(2, C, 2000), torch.ones(2, C, 2000)])
    y = draws(noisy, x, 200)
    m, s = y[:, :2], y[:, 2:] - y[:, :2].mean((1, 3), keepdim=True)
    means, factors = m.mean((1, 3)), s.mean((1, 3))  # of each step and channel
    assert means.abs().max() < shift + 0.02
    assert factors.min() > 1 - 0.02
    assert factors.max() < 1 + scale + 0.02
    assert means.std().item() == pytest.approx(shift / 3**0.5, rel=0.05)
    assert factors.std().item() == pytest.approx(scale / 12**0.5, rel=0.05)
    # Within a step, values differ: uniform +- spread, and normal in the factor.
    assert m.std((1, 3)).mean().item() == pytest.approx(spread / 3**0.5, rel=0.02)
    within = spread * (1 + 1 / 3) ** 0.5
    assert y[:, 2:].std((1, 3)).mean().item() == pytest.approx(within, rel=0.02)


def test_micro_batches_of_a_step_share_the_distribution_of_activation_noise() -> None:
    noisy = layer("none", activation(1.0, 1.0, 0.0), 4, forwards_per_step=2)
    y = draws(noisy, normal(4, C, 3), 4)
    assert torch.equal(y[0], y[1])
    assert torch.equal(y[2], y[3])
    assert not torch.allclose(y[0], y[2], atol=0.01)


@pytest.mark.parametrize("name", names())
def test_noise_of_size_0_and_evaluation_change_no_norm(name: str) -> None:
    x = normal(4, C, 4, 4)
    norm = layer(name, None, 2)
    norm.eval()(x)  # some norms make their parameters in the first forward
    copies = [copy.deepcopy(norm) for _ in range(3)]
    outputs = []
    for size, module in zip((0.0, 0.5), copies, strict=False):
        noisy = NoisyNorm(module, activation(size, size, size), 2, layer=1)
        assert torch.equal(noisy.eval()(x), norm.eval()(x))
        torch.manual_seed(0)
        outputs.append(noisy.train()(x))
    torch.manual_seed(0)
    expected = copies[2].train()(x)
    assert torch.equal(outputs[0], expected)
    assert not torch.allclose(outputs[1], expected, atol=0.01)


@pytest.mark.parametrize("name", names())
def test_statistic_noise_works_with_every_norm_or_says_why_not(name: str) -> None:
    norm = make(name, C)
    if norm.contains_activation or norm.conditions is not None:
        with pytest.raises(Incompatible, match=rf"norm={name}\b.*kind=activation"):
            layer(name, statistic(0.1, 0.1), 2)
        return
    x = normal(4, C, 4, 4).requires_grad_()
    module = layer(name, statistic(0.1, 0.1), 2)
    module(x).square().sum().backward()
    gradients = [x.grad, *(parameter.grad for parameter in module.parameters())]
    assert all(g is not None and g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("name", ["batch", "group", "layer_shape", "rms", "dyt"])
def test_a_gain_of_0_removes_statistic_noise(name: str) -> None:
    """So the network cannot reduce the noise by a larger gain."""
    x = normal(4, C, 4, 4)
    module = layer(name, statistic(1.0, 0.5), 2)
    module(x)
    norm = next(m for m in module.modules() if isinstance(m, Norm))
    with torch.no_grad():
        norm.weight.zero_()
        if norm.bias is not None:
            norm.bias.fill_(3.0)
    expected = 0.0 if norm.bias is None else 3.0
    assert torch.allclose(module(x), torch.tensor(expected), atol=1e-5)


def test_noise_depends_on_the_seed_and_the_layer_only() -> None:
    x = normal(4, C, 3)
    factory = NormFactory("none", {}, 4, noise=statistic(1.0, 0.5))
    first, second = factory(C), factory(C)
    again = NormFactory("none", {}, 4, noise=statistic(1.0, 0.5))(C)
    other = NormFactory("none", {}, 4, noise=statistic(1.0, 0.5, seed=1))(C)
    y = first(x)
    torch.manual_seed(3)
    assert torch.equal(again(x), y)
    for module in (second, other):
        assert not torch.allclose(module(x), y, atol=0.01)


def test_processes_draw_the_statistic_noise_of_their_norm_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The shares of a batch get the noise that the whole batch gets in one process."""
    x = normal(8, C, 3)
    for norm_batch in (2, 4, 8):
        whole = layer("none", statistic(1.0, 0.5), norm_batch)(x)
        monkeypatch.setattr(noise, "replica_count", lambda: 4)
        shares = []
        for rank in range(4):
            monkeypatch.setattr(noise.dist, "get_rank", lambda rank=rank: rank)
            module = layer("none", statistic(1.0, 0.5), norm_batch)
            shares.append(module(x[2 * rank : 2 * rank + 2]))
        monkeypatch.undo()
        assert torch.equal(torch.cat(shares), whole)


def test_a_restored_norm_continues_with_the_same_noise() -> None:
    x = normal(4, C, 3)
    module, restored = (layer("group", statistic(1.0, 0.5), 2) for _ in range(2))
    draws(module, x, 3)
    restored.load_state_dict(module.state_dict())
    assert torch.equal(restored(x), module(x))


def test_a_batch_that_norm_batch_does_not_divide_is_refused() -> None:
    with pytest.raises(
        RequestError, match=r"norm_batch=4 does not divide a batch of 6"
    ):
        NoisyNorm(make("none", C), statistic(0.1, 0.1), 4, 1)(normal(6, C, 3))


def test_half_precision_is_kept_and_an_empty_batch_passes() -> None:
    for kind in (statistic(0.1, 0.1), activation(0.5, 0.25, 0.1)):
        module = layer("group", kind, 4)
        assert module(normal(4, C, 3).bfloat16()).dtype == torch.bfloat16
        assert module(normal(0, C, 3)).shape == (0, C, 3)


KINDS = {
    "activation": ["norm_noise.shift=0.5", "norm_noise.scale=0.25"],
    "statistic": ["norm_noise.shift=0.2", "norm_noise.scale=0.1"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_with_noise_ends_as_if_it_had_not_been(
    kind: str, tmp_path: Path
) -> None:
    spread = ["norm_noise.spread=0.1"] if kind == "activation" else []
    config = small(
        *("task=cnn", "norm=batch", "norm_batch=8", f"norm_noise.kind={kind}"),
        *(*KINDS[kind], *spread, "keep_weights=true"),
        *("data=shapes", "data.size=16", "data.samples=300"),
    )
    whole = content(tmp_path, run_one(config, Results(tmp_path)))
    assert whole[2][0] == "ok"
    calls = iter(range(1, 100))
    with pytest.raises(Stopped):
        run_one(config, Results(tmp_path / "b"), stop=lambda: next(calls) == 5)
    torch.rand(7)
    assert content(tmp_path / "b", run_one(config, Results(tmp_path / "b"))) == whole


def test_the_run_id_depends_on_noise_that_is_used() -> None:
    default = compose([])
    assert run_id(compose(["norm_noise.kind=none"])) == run_id(default)
    used = compose(["norm_noise.kind=statistic", "norm_noise.shift=0.1"])
    assert run_id(used) != run_id(default)
    assert "statistic_noise" in title(used)
    assert "noise" not in title(default)


def test_sizes_that_do_not_apply_are_refused() -> None:
    for overrides, message in (
        (["norm_noise.shift=0.1"], "shift=0.1 does not apply to kind=none"),
        (
            ["norm_noise.kind=statistic", "norm_noise.spread=0.1"],
            "spread=0.1 does not apply to kind=statistic; "
            "set norm_noise.kind=activation",
        ),
        (["norm_noise.kind=activation", "norm_noise.scale=-1"], "norm_noise.scale=-1"),
    ):
        with pytest.raises(RequestError, match=message):
            compose(overrides)


def test_a_norm_that_cannot_have_the_noise_is_found_before_the_run() -> None:
    noise = ["norm_noise.kind=statistic", "norm_noise.shift=0.1", "data.size=14"]
    reason = incompatible(compose([*noise, "norm=evonorm_s0"]))
    assert reason is not None
    assert "norm_noise.kind=activation" in reason
    assert incompatible(compose([*noise, "norm=batch"])) is None
