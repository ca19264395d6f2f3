"""Precisions: norms and runs in bf16, fp16 and fp32."""

import copy
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, Run
from layers_made import made_float32

from normbench.config.composition import compose
from normbench.errors import Stopped
from normbench.norms import REGISTRY, names
from normbench.records.store import Results
from normbench.training.experiment import run_one


@pytest.mark.parametrize("shape", [(6, 16, 5, 3), (6, 16, 9)], ids=len)
def test_a_norm_computes_in_float32_and_returns_the_dtype_of_its_input(
    shape: tuple[int, ...],
) -> None:
    for name, dtype in product(names(), (torch.bfloat16, torch.float16)):
        torch.manual_seed(0)
        # The mean is so large that a variance in 16 bits would be wrong.
        x = (torch.randn(shape) * 3 + 40).to(dtype)
        norm = made_float32(name, x.shape)
        wide_norm = copy.deepcopy(norm)
        narrow, wide = x.clone().requires_grad_(), x.float().requires_grad_()
        for training in (True, True, False):
            y = norm.train(training)(narrow)
            expected = wide_norm.train(training)(wide)
            assert y.dtype == dtype, name
            assert y.isfinite().all(), name
            assert torch.equal(y, expected.to(dtype)), (name, dtype)
            grad = torch.linspace(-1, 1, y.numel()).view(y.shape).to(dtype)
            y.backward(grad)
            expected.backward(grad.float())
        assert narrow.grad is not None and wide.grad is not None
        assert narrow.grad.dtype == dtype
        close = partial(torch.testing.assert_close, msg=f"{name} in {dtype}")
        close(narrow.grad.float(), wide.grad, rtol=0.03, atol=0.03)
        for parameter, twin in zip(
            norm.parameters(), wide_norm.parameters(), strict=True
        ):
            close(parameter.grad, twin.grad)
        for buffer, twin in zip(norm.buffers(), wide_norm.buffers(), strict=True):
            assert torch.equal(buffer, twin), (name, dtype)


def test_autocast_changes_nothing_inside_a_norm() -> None:
    for name in names():
        torch.manual_seed(0)
        x = torch.randn(6, 16, 5, 3)
        norm = made_float32(name, x.shape)
        plain = copy.deepcopy(norm)(x)
        with torch.autocast("cpu", torch.bfloat16):
            inside = copy.deepcopy(norm)(x)
            narrow = copy.deepcopy(norm)(x.bfloat16())
        assert inside.dtype == torch.float32, name
        assert torch.equal(inside, plain), name
        assert torch.equal(narrow, copy.deepcopy(norm)(x.bfloat16())), name


def test_only_power_norm_is_not_safe_under_a_scaled_loss() -> None:
    """With a loss times 4, the other norms return an input gradient times 4."""
    unsafe = []
    for name in names():
        torch.manual_seed(0)
        x = torch.randn(6, 16, 5, 3)
        first = made_float32(name, x.shape)
        second = copy.deepcopy(first)
        for scale in (1.0, 4.0):  # the scale grows between two steps
            grads = []
            for norm, factor in ((first, 1.0), (second, scale)):
                leaf = x.clone().requires_grad_()
                y = norm(leaf)
                y.backward(torch.linspace(-1, 1, y.numel()).view(y.shape) * factor)
                assert leaf.grad is not None
                grads.append(leaf.grad / factor)
        if not torch.allclose(*grads, rtol=1e-4, atol=1e-6):
            unsafe.append(name)
    assert unsafe == [name for name in names() if not REGISTRY.get(name).loss_scaling]
    assert unsafe == ["power"]


@pytest.mark.slow
@pytest.mark.parametrize("task", SMALL)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_run_in_16_bits_learns_as_one_in_32(
    task: str, precision: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With the default scale, fp16 skips a number of steps that depends on the CPU.
    scaler = partial(torch.amp.GradScaler, init_scale=2.0**6)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    words = [*SMALL[task], "batch_size=4", "lr=0.01"]
    if task == "style":
        words[-1:] = ["lr=0.002", "budget.epochs=10", "budget.max_steps=20"]
        # The loss of smaller crops is noisier.
        words += ["data.crop=64", "data.val_crops=64", "data.test_crops=64"]
    whole = run(*words)
    half = run(*words, f"precision={precision}")
    assert half.status == "ok", half.error
    assert half.run_id != whole.run_id
    half_loss, whole_loss = half.metrics["train/loss"], whole.metrics["train/loss"]
    assert half_loss == pytest.approx(whole_loss, rel=0.05)
    assert half_loss != whole_loss


@pytest.mark.slow
def test_fp16_resumes_with_its_scale(run: Run, tmp_path: Path) -> None:
    words = [*SMALL["cnn"], "batch_size=4", "precision=fp16", "clip=1", "log_every=3"]
    whole = run(*words)
    config = compose(["budget=smoke", "tracker=none", *words])
    answers = iter([False] * 4 + [True])
    with pytest.raises(Stopped):
        run_one(config, Results(tmp_path / "other"), stop=lambda: next(answers))
    resumed = run_one(config, Results(tmp_path / "other"))
    assert resumed.metrics == whole.metrics


@pytest.mark.slow
def test_momentum_starts_at_zero_if_the_first_step_is_skipped(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deterministic algorithms fill memory that is not initialised with nan."""
    scaler = partial(torch.amp.GradScaler, init_scale=2.0**126, backoff_factor=2**-120)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(1).isnan()
        done = run(*SMALL["cnn"], "batch_size=4", "precision=fp16")
    finally:
        torch.use_deterministic_algorithms(False)
    assert done.status == "ok", done.error
    assert done.config.optimizer.name == "sgd"


def test_fp32_is_fp32_on_cuda_too(run: Run) -> None:
    backends: Any = torch.backends
    backends.cudnn.allow_tf32 = backends.cuda.matmul.allow_tf32 = True
    assert run(*SMALL["cnn"]).config.precision == "fp32"
    assert not backends.cudnn.allow_tf32
    assert not backends.cuda.matmul.allow_tf32
    if hasattr(backends.cudnn, "conv"):  # the name in newer versions of torch
        assert backends.cudnn.conv.fp32_precision != "tf32"
        assert backends.cuda.matmul.fp32_precision != "tf32"
