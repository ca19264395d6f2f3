"""What only a CUDA device can show; without one, every test here is skipped."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from conftest import SMALL, Command, Run
from layers_made import made_float32
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normbench.config.composition import compose
from normbench.data.base import REGISTRY as DATA
from normbench.errors import Incompatible, Stopped
from normbench.norms import Norm, names
from normbench.probes.base import PROBES
from normbench.records.store import Results
from normbench.tasks.base import Task
from normbench.training import loop, network
from normbench.training.experiment import run_one

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no CUDA device"
)
CUDA = torch.device("cuda")


def results(norm: Norm, x: Tensor, mask: Tensor | None) -> list[Tensor]:
    """Outputs, gradients and buffers after two steps and one evaluation, on the CPU."""
    tensors = []
    for training in (True, True, False):
        leaf = x.clone().requires_grad_()
        y = norm.train(training)(leaf, mask)
        weights = torch.linspace(-1, 1, y.numel(), dtype=x.dtype, device=x.device)
        (y * weights.view(y.shape)).sum().backward()
        assert leaf.grad is not None
        tensors += [y.detach(), leaf.grad]
    tensors += [p.grad for p in norm.parameters() if p.grad is not None]
    return [tensor.cpu() for tensor in (*tensors, *norm.buffers())]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_norm_computes_on_cuda_what_it_computes_on_the_cpu(
    dtype: torch.dtype,
) -> None:
    tolerance = {torch.float32: 1e-3, torch.float64: 1e-10}[dtype]
    lengths = torch.tensor([9, 9, 7, 4, 2, 1])
    for name in names():
        for shape, manswers in (((6, 16, 5, 3), False), ((6, 16, 9), True)):
            torch.manual_seed(0)
            x = torch.randn(shape, dtype=dtype) * 2 + 1
            mask = torch.arange(9) < lengths[:, None] if manswers else None
            on_cpu = made_float32(name, x.shape).to(dtype)
            on_cuda = copy.deepcopy(on_cpu).to(CUDA)
            expected = results(on_cpu, x, mask)
            computed = results(
                on_cuda, x.to(CUDA), None if mask is None else mask.to(CUDA)
            )
            for one, other in zip(computed, expected, strict=True):
                torch.testing.assert_close(
                    one,
                    other,
                    rtol=tolerance,
                    atol=tolerance,
                    msg=lambda text, case=(name, shape): f"{case}: {text}",
                )


def test_channels_last_changes_no_norm() -> None:
    for name in names():
        torch.manual_seed(0)
        x = torch.randn(6, 16, 5, 3)
        norm = made_float32(name, x.shape).to(CUDA)
        other = copy.deepcopy(norm)
        plain = norm(x.to(CUDA))
        y = other(x.to(CUDA).to(memory_format=torch.channels_last))
        torch.testing.assert_close(y, plain, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("task", SMALL)
def test_a_run_on_cuda_learns_as_one_on_the_cpu(
    task: str, run: Run, tmp_path: Path
) -> None:
    words = [*SMALL[task], "batch_size=4", "lr=0.002"]
    on_cpu = run(*words, "device=cpu")
    on_cuda = run(*words, "device=cuda", results=tmp_path / "cuda")
    assert on_cuda.status == "ok", on_cuda.error
    assert on_cuda.run_id == on_cpu.run_id
    assert on_cuda.environment.device.startswith("cuda (")
    assert on_cuda.metrics.keys() == on_cpu.metrics.keys()
    for metric in ("train/loss", "test/loss"):
        assert on_cuda.metrics[metric] == pytest.approx(
            on_cpu.metrics[metric], rel=0.01
        ), metric


@pytest.mark.parametrize("task", SMALL)
@pytest.mark.parametrize(
    "how", ["precision=bf16", "precision=fp16", "compile=true", "channels_last=true"]
)
def test_each_way_of_computing_learns_as_the_plain_one(
    task: str, how: str, run: Run, tmp_path: Path
) -> None:
    if how.startswith("channels_last") and task == "transformer":
        pytest.skip("channels_last is for images")
    words = [*SMALL[task], "batch_size=4", "lr=0.002", "device=cuda"]
    words += ["budget.epochs=10", "budget.max_steps=20"]
    plain = run(*words)
    other = run(*words, how, results=tmp_path / "other")
    assert other.status == "ok", other.error
    assert other.metrics["train/loss"] == pytest.approx(
        plain.metrics["train/loss"], rel=0.05
    )


def test_every_norm_trains_on_cuda(run: Run, tmp_path: Path) -> None:
    for task in SMALL:
        for name in names():
            words = [*SMALL[task], f"norm={name}", "batch_size=4", "norm_batch=2"]
            words += ["device=cuda", "budget.max_steps=3", "lr=0.001"]
            try:
                record = run(*words, results=tmp_path / task)
            except Incompatible:
                continue
            assert record.status == "ok", (task, name, record.error)


def test_every_probe_measures_on_cuda(run: Run) -> None:
    for task in SMALL:
        kind = DATA.get(compose(SMALL[task]).data.name).kind
        probes = [n for n in PROBES.names() if issubclass(kind, PROBES.data(n))]
        measured = set()
        for norm in ("batch", "group"):  # some probes are of one of them
            words = [*SMALL[task], f"norm={norm}", "batch_size=8", "device=cuda"]
            record = run(*words, f"probes=[{','.join(probes)}]")
            assert record.status == "ok", (task, norm, record.error)
            measured |= {key.partition("/")[0] for key in record.probes}
        assert measured == set(probes), task


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_stopped_run_goes_on_with_the_random_streams_of_the_device(
    precision: str, tmp_path: Path
) -> None:
    words = ["budget=smoke", "tracker=none", *SMALL["transformer"], "device=cuda"]
    words += ["task.dropout=0.5", "batch_size=4", f"precision={precision}"]
    config = compose(words)
    whole = run_one(config, Results(tmp_path / "whole"))
    answers = iter([False] * 4 + [True])
    with pytest.raises(Stopped):
        run_one(config, Results(tmp_path / "stopped"), stop=lambda: next(answers))
    torch.cuda.manual_seed(7)  # a new process would have another stream
    resumed = run_one(config, Results(tmp_path / "stopped"))
    assert resumed.metrics["train/loss"] == pytest.approx(
        whole.metrics["train/loss"], rel=1e-4
    )


def test_float32_is_not_rounded_to_tf32() -> None:
    network.turn_off_tf32()
    torch.manual_seed(0)
    a, b = torch.randn(2, 256, 256, dtype=torch.float64, device=CUDA)
    exact = a @ b
    error = ((a.float() @ b.float()).double() - exact).abs().max() / exact.abs().max()
    assert error < 1e-5
    images = torch.randn(4, 64, 16, 16, dtype=torch.float64, device=CUDA)
    weight = torch.randn(64, 64, 3, 3, dtype=torch.float64, device=CUDA)
    exact = nn.functional.conv2d(images, weight)
    rounded = nn.functional.conv2d(images.float(), weight.float()).double()
    assert (rounded - exact).abs().max() / exact.abs().max() < 1e-5


@pytest.mark.parametrize("task", SMALL)
def test_no_step_waits_for_cuda(task: str) -> None:
    """torch itself raises where a call of the step would wait for the device."""
    waits = []
    for name in names():
        words = [*SMALL[task], f"norm={name}", "batch_size=4", "norm_batch=2"]
        config = compose([*words, "device=cuda"])
        data = network.make_task(config, CUDA)
        try:
            network.check(config, network.make_task(config, torch.device("cpu")))
        except Incompatible:
            continue
        model = network.build(config, data).model.to(CUDA)
        if any(is_lazy(parameter) for parameter in model.parameters()):
            model(*data.inputs(data.splits["train"][:4]))
        try:
            _steps(model, data)
        except RuntimeError as error:
            waits.append((name, str(error).splitlines()[0]))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert not waits


def _steps(model: nn.Module, data: Task) -> None:
    """Four steps, of which the last two may not wait; the first ones allocate."""

    def after_step(step: int, pending: Sequence[Tensor]) -> None:
        if step == 2:
            torch.cuda.set_sync_debug_mode("error")
        if step == 4:
            torch.cuda.set_sync_debug_mode("default")

    loop.fit(
        model,
        data.loss,
        torch.optim.SGD(model.parameters(), lr=0.1, fused=True),
        steps=5,
        micro_batches=loop.micro_batches(data.splits["train"], 0, 4, 1),
        learning_rate=lambda step: 0.01,
        clip=1.0,
        log_every=5,
        log=lambda *row: None,
        evaluate_at=frozenset(),
        evaluate=lambda step: None,
        after_step=after_step,
    )


def test_a_sweep_shares_one_device_among_its_workers(command: Command) -> None:
    words = ["sweep", *SMALL["cnn"], "budget=smoke", "tracker=none", "seed=range(0,4)"]
    done = command(*words, "device=cuda", "engine.workers=2", timeout=300)
    assert done.returncode == 0, done.stderr
    rows = json.loads(command("results", "--json").stdout)
    assert [row["status"] for row in rows] == ["ok"] * 4
