"""compile=true: compiled networks train as others do, in every run of a process."""

import copy
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, Run
from layers_made import made_float32
from torch import Tensor, nn

from normbench.config.composition import compose
from normbench.errors import RequestError, Stopped
from normbench.norms import REGISTRY, Norm, names
from normbench.records.store import Results, run_folder
from normbench.sweeps.engines.local import require_devices
from normbench.training import experiment, network
from normbench.training.experiment import run_one


def test_a_missing_compiler_is_reported_before_anything_is_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(*args: object, **kwargs: object) -> None:
        raise RuntimeError("No working C++ compiler found\nand many more lines")

    monkeypatch.setattr(torch, "compile", no_compiler)
    network.require_compiler.cache_clear()
    with pytest.raises(RequestError, match=r"No working C\+\+ compiler found; set"):
        run(*SMALL["cnn"], "compile=true")
    with pytest.raises(RequestError, match=r"No working C\+\+ compiler found; set"):
        require_devices([compose(["compile=true"])])
    network.require_compiler.cache_clear()
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["batch", "group", "batch_regularized"])
def test_a_compiled_run_repeats_and_resumes_to_the_bit(
    norm: str, run: Run, tmp_path: Path
) -> None:
    words = [*SMALL["cnn"], f"norm={norm}"]
    plain = run(*words)
    config = compose(["budget=smoke", "tracker=none", "compile=true", *words])
    once, again = (run_one(config, Results(tmp_path / name)) for name in ("a", "b"))
    assert once.environment.device == "cpu, compiled"
    assert once.metrics == again.metrics
    assert once.metrics["train/loss"] == pytest.approx(
        plain.metrics["train/loss"], rel=1e-3
    )
    answers = iter([False] * 4 + [True])
    with pytest.raises(Stopped):
        run_one(config, Results(tmp_path / "c"), stop=lambda: next(answers))
    assert run_one(config, Results(tmp_path / "c")).metrics == once.metrics
    history = run_folder(tmp_path / "c", once.run_id) / "history.jsonl"
    other = run_folder(tmp_path / "a", once.run_id) / "history.jsonl"
    assert history.read_bytes() == other.read_bytes()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """The graphs that torch compiles, without the inductor, which takes minutes."""
    compiled: list[torch.fx.GraphModule] = []
    real: Any = torch.compile

    def collect(graph: torch.fx.GraphModule, inputs: Sequence[Tensor]) -> Any:
        compiled.append(graph)
        return graph.forward

    def compile(network: nn.Module, **_: object) -> Any:
        return real(network, backend=collect)

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(experiment, "require_compiler", lambda device: None)
    return compiled


@pytest.mark.slow
def test_the_tenth_network_of_a_process_is_compiled_as_the_first(
    run: Run, graphs: list[torch.fx.GraphModule]
) -> None:
    norms = ["affine", "derf", "dyt", "frozen_batch", "group", "instance"]
    norms += ["layer_sample", "none", "rms", "scale"]
    for count, norm in enumerate(norms, 1):
        done = run(*SMALL["cnn"], f"norm={norm}", "compile=true", "budget.max_steps=2")
        assert done.status == "ok", done.error
        assert len(graphs) == count, norm


@pytest.mark.slow
def test_a_run_fails_at_the_limit_of_recompilations(
    run: Run, graphs: list[torch.fx.GraphModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph of the network differs in every step; torch compiles eight graphs."""
    calls: list[None] = []

    def forward(self: Norm, x: Tensor, *_: Tensor | None) -> Tensor:
        calls.append(None)
        return x / len(calls)

    monkeypatch.setattr(REGISTRY.get("affine"), "forward", forward)
    words = [*SMALL["cnn"], "norm=affine", "compile=true"]
    done = run(*words, "budget.max_steps=10")
    assert len(graphs) == 8
    assert done.status == "failed"
    assert "limit" in str(done.error)


@pytest.mark.slow
def test_a_compiled_run_has_the_dropout_of_a_plain_one(
    run: Run, tmp_path: Path
) -> None:
    words = [*SMALL["transformer"], "norm=layer_position", "task.dropout=0.5"]
    words += ["batch_size=4", "budget.max_steps=4", "lr=0.1"]
    plain = run(*words)
    compiled = run(*words, "compile=true", results=tmp_path / "compiled")
    assert compiled.environment.device == "cpu, compiled"
    assert compiled.metrics["train/loss"] == pytest.approx(
        plain.metrics["train/loss"], rel=1e-6
    )


@pytest.mark.slow
def test_a_compiled_norm_has_the_gradient_of_a_plain_one() -> None:
    """The backward pass may recompute values, but not from buffers updated since.

    So the buffers differ from their initial values.
    """
    x_mask = torch.arange(9) < torch.tensor([9, 9, 7, 4, 2, 1])[:, None]
    for name, mask in product(names(), (None, x_mask)):
        torch.manual_seed(0)
        x = torch.randn(6, 16, 9) * 2 + 1
        plain = made_float32(name, x.shape)
        for buffer in plain.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 2)
            elif buffer.dim() == 0:
                buffer.fill_(200)  # after every warm-up
        twin = copy.deepcopy(plain)
        torch.compiler.reset()
        compiled = torch.compile(twin, backend="aot_eager")
        weights = torch.randn(x.shape)
        results = []
        for call, norm in ((plain, plain), (compiled, twin)):
            leaf = x.clone().requires_grad_()
            loss = (call(leaf, mask) * weights).mean()
            if norm.penalty is not None:
                loss = loss + norm.penalty
            loss.backward()
            assert leaf.grad is not None
            results.append([loss.detach(), leaf.grad, *norm.buffers()])
            results[-1] += [p.grad for p in norm.parameters() if p.grad is not None]
        for expected, computed in zip(*results, strict=True):
            torch.testing.assert_close(computed, expected, msg=f"{name}, mask: {mask}")
