"""Devices, precisions, layouts, compilation; and that no step waits for a device."""

import copy
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, Command, Run
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from normbench.cli.console import Terminal
from normbench.cli.progress import SweepProgress
from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.config.schema import LocalEngine
from normbench.errors import Incompatible, RequestError, Stopped
from normbench.norms import REGISTRY, Norm, make, names
from normbench.records.store import Results, run_folder
from normbench.sweeps.engines import local
from normbench.sweeps.engines.base import Work
from normbench.sweeps.engines.local import require_devices
from normbench.sweeps.forecast import Forecast
from normbench.tasks.base import Task
from normbench.training import experiment, loop, network
from normbench.training.experiment import run_one

CPU, META = torch.device("cpu"), torch.device("meta")
NARROW = [torch.bfloat16, torch.float16]
every_task = pytest.mark.parametrize("task", SMALL)


def made(name: str, x: Tensor) -> Norm:
    """A norm in training, with random parameters in float32."""
    norm = make(name, x.shape[1])
    if any(is_lazy(parameter) for parameter in norm.parameters()):
        norm(torch.zeros(x.shape))
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 0.4, 0.9)
    return norm.train()


@pytest.mark.parametrize("shape", [(6, 16, 5, 3), (6, 16, 9)], ids=len)
def test_a_norm_computes_in_float32_and_answers_in_the_type_of_its_input(
    shape: tuple[int, ...],
) -> None:
    for name, dtype in product(names(), NARROW):
        torch.manual_seed(0)
        # Far from 0: in 16 bits the variance would be lost.
        x = (torch.randn(shape) * 3 + 40).to(dtype)
        norm = made(name, x)
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
        for ours, theirs in zip(norm.buffers(), wide_norm.buffers(), strict=True):
            assert torch.equal(ours, theirs), (name, dtype)


def test_autocast_changes_nothing_inside_a_norm() -> None:
    for name in names():
        torch.manual_seed(0)
        x = torch.randn(6, 16, 5, 3)
        norm = made(name, x)
        plain = copy.deepcopy(norm)(x)
        with torch.autocast("cpu", torch.bfloat16):
            inside = copy.deepcopy(norm)(x)
            narrow = copy.deepcopy(norm)(x.bfloat16())
        assert inside.dtype == torch.float32, name
        assert torch.equal(inside, plain), name
        assert torch.equal(narrow, copy.deepcopy(norm)(x.bfloat16())), name


def test_only_power_norm_is_not_safe_under_a_scaled_loss() -> None:
    """Twice the gradient of the output gives twice that of the input, step for step."""
    unsafe = []
    for name in names():
        torch.manual_seed(0)
        x = torch.randn(6, 16, 5, 3)
        first = made(name, x)
        second = copy.deepcopy(first)
        for scale in (1.0, 4.0):  # as a scale that grows between two steps
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
@every_task
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_run_in_16_bits_learns_as_one_in_32(
    task: str, precision: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # fp16 skips steps at first, until its scale is small enough: how many depends on
    # how the CPU rounds.
    scaler = partial(torch.amp.GradScaler, init_scale=2.0**6)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    words = [*SMALL[task], "batch_size=4", "lr=0.01"]
    if task == "style":
        words[-1:] = ["lr=0.002", "budget.epochs=10", "budget.max_steps=20"]
    whole = run(*words)
    half = run(*words, f"precision={precision}")
    assert half.status == "ok", half.error
    assert half.run_id != whole.run_id
    ours, theirs = half.metrics["train/loss"], whole.metrics["train/loss"]
    assert ours == pytest.approx(theirs, rel=0.05)
    assert ours != theirs


@pytest.mark.slow
def test_fp16_resumes_with_its_scale(run: Run, tmp_path: Path) -> None:
    words = [*SMALL["cnn"], "batch_size=4", "precision=fp16", "clip=1", "log_every=3"]
    whole = run(*words)
    config = compose(["budget=smoke", "tracker=none", *words])
    asked = iter([False] * 4 + [True])
    with pytest.raises(Stopped):
        run_one(config, Results(tmp_path / "other"), stop=lambda: next(asked))
    resumed = run_one(config, Results(tmp_path / "other"))
    assert resumed.metrics == whole.metrics


@pytest.mark.slow
def test_momentum_starts_at_zero_where_the_first_step_is_skipped(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that nobody has written to is nan here."""
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


def test_what_does_not_work_together_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(Incompatible, match="precision=bf16"):
        run("norm=power", "precision=fp16")
    with pytest.raises(RequestError, match="channels_last"):
        run("task=transformer", "channels_last=true")
    assert not (tmp_path / "runs").exists()


def test_auto_is_cuda_then_mps_then_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    here: set[str] = set()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in here)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in here)
    chosen = []
    for device in ("", "mps", "cuda"):
        here.add(device)
        chosen.append(network.choose_device("auto").type)
    assert chosen == ["cpu", "mps", "cuda"]


def test_one_of_several_devices_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert network.choose_device("cuda:1") == torch.device("cuda", 1)
    told = "device=cuda:2 is not here; available: cuda, cpu, cuda:0, cuda:1"
    with pytest.raises(RequestError, match=told):
        network.choose_device("cuda:2")
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(experiment, "check", lambda config, task: None)
    config = compose(["device=cuda:1"])
    second = network.choose_device(config.device)
    monkeypatch.setattr(experiment, "make_task", lambda config, device: None)
    experiment.prepare(config, second)
    assert current == [second]


def test_a_named_device_changes_no_id_and_no_worker_is_dealt_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second, dealt = compose(["device=cuda:1"]), compose(["device=cuda"])
    assert run_id(second) == run_id(dealt)
    monkeypatch.setattr(local, "visible_gpus", lambda: ["5", "6"])
    for config, gpus in ((second, []), (dealt, ["5", "6"])):
        runs = {run_id(config): config}
        work = Work(
            runs, Results(tmp_path), Forecast([], runs, 1), SweepProgress(Terminal())
        )
        engine = LocalEngine(name="local", workers=1, timeout=None)
        assert local.Pool(work, engine).gpus == gpus


def test_another_word_is_no_device() -> None:
    for word in ("gpu", "cuda:", "cuda:01", "cuda:x", "cpu:1", "CUDA", "cuda:1 "):
        with pytest.raises(RequestError, match="a device is 'auto', 'cpu', 'cuda'"):
            compose([f"device='{word}'"])
        with pytest.raises(RequestError, match="is not here"):
            network.choose_device(word)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("arguments", [["train"], ["sweep", "seed=0,1"]])
def test_cuda_without_cuda_is_one_clear_error(
    arguments: list[str], command: Command, tmp_path: Path
) -> None:
    done = command(*arguments, "device=cuda", "tracker=none")
    assert done.returncode == 2
    told = "error: device=cuda is not here; available: cpu"
    assert [line for line in done.stderr.splitlines() if "error" in line] == [told]
    assert list(tmp_path.iterdir()) == []


def test_fp32_is_fp32_on_cuda_too(run: Run) -> None:
    backends: Any = torch.backends
    backends.cudnn.allow_tf32 = backends.cuda.matmul.allow_tf32 = True
    assert run(*SMALL["cnn"]).config.precision == "fp32"
    assert not backends.cudnn.allow_tf32
    assert not backends.cuda.matmul.allow_tf32
    if hasattr(backends.cudnn, "conv"):  # what newer versions of torch call it
        assert backends.cudnn.conv.fp32_precision != "tf32"
        assert backends.cuda.matmul.fp32_precision != "tf32"


def test_channels_last_is_another_layout_of_the_same_network(run: Run) -> None:
    layouts: set[bool] = set()

    def look(module: nn.Module, *_: object) -> None:
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            if module.weight.device == CPU and module.in_channels > 1:
                layouts.add(module.weight.stride(1) == 1)

    with register_module_forward_hook(look):
        plain = run(*SMALL["cnn"])
        assert layouts == {False}
        layouts.clear()
        other = run(*SMALL["cnn"], "channels_last=true", "keep_weights=true")
        assert layouts == {True}
    assert other.metrics["train/loss"] == pytest.approx(
        plain.metrics["train/loss"], rel=1e-3
    )
    assert other.environment.device == "cpu, channels last"


def test_a_missing_compiler_is_told_before_anything_is_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(*args: object, **kwargs: object) -> None:
        raise RuntimeError("No working C++ compiler found\nand a long story")

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
    asked = iter([False] * 4 + [True])
    with pytest.raises(Stopped):
        run_one(config, Results(tmp_path / "c"), stop=lambda: next(asked))
    assert run_one(config, Results(tmp_path / "c")).metrics == once.metrics
    history = run_folder(tmp_path / "c", once.run_id) / "history.jsonl"
    other = run_folder(tmp_path / "a", once.run_id) / "history.jsonl"
    assert history.read_bytes() == other.read_bytes()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """What torch compiles, each taken as it is: the inductor would take minutes."""
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
    ten = ["affine", "derf", "dyt", "frozen_batch", "group", "instance", "layer_sample"]
    ten += ["none", "rms", "scale"]
    for count, norm in enumerate(ten, 1):
        done = run(*SMALL["cnn"], f"norm={norm}", "compile=true", "budget.max_steps=2")
        assert done.status == "ok", done.error
        assert len(graphs) == count, norm


@pytest.mark.slow
def test_a_run_that_torch_would_not_go_on_compiling_fails(
    run: Run, graphs: list[torch.fx.GraphModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its network is another one in each step: torch compiles eight of them."""
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
def test_a_compiled_run_drops_out_what_a_plain_one_does(
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
    """What a graph computes again for the backward pass, it might from a buffer that
    has moved since: so buffers that are not those of the first step."""
    x_mask = torch.arange(9) < torch.tensor([9, 9, 7, 4, 2, 1])[:, None]
    for name, mask in product(names(), (None, x_mask)):
        torch.manual_seed(0)
        x = torch.randn(6, 16, 9) * 2 + 1
        plain = made(name, x)
        for buffer in plain.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 2)
            elif buffer.dim() == 0:
                buffer.fill_(200)  # after every warm-up
        other = copy.deepcopy(plain)
        torch.compiler.reset()
        compiled = torch.compile(other, backend="aot_eager")
        weights = torch.randn(x.shape)
        results = []
        for call, norm in ((plain, plain), (compiled, other)):
            leaf = x.clone().requires_grad_()
            loss = (call(leaf, mask) * weights).mean()
            if norm.penalty is not None:
                loss = loss + norm.penalty
            loss.backward()
            assert leaf.grad is not None
            results.append([loss.detach(), leaf.grad, *norm.buffers()])
            results[-1] += [p.grad for p in norm.parameters() if p.grad is not None]
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, msg=f"{name}, mask: {mask}")


# On the meta device, tensors have no values: what would wait for one, to read it or to
# make a shape of it, cannot be done. So a step that works there waits for no device.


class _Copies(TorchDispatchMode):
    """Counts the copies to the device, and those among them that would wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.to_device = self.blocking = self.reads = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name in {"_to_copy", "copy_"}:
            source = args[1] if name == "copy_" else args[0]
            if source.device != result.device:
                assert result.device == META, "a copy from the device"
                self.to_device += 1
                given = args[2:] or (kwargs.get("non_blocking", False),)
                self.blocking += not given[0]
        tensors = [a for a in args if isinstance(a, Tensor) and a.device == META]
        if tensors and name in {"_local_scalar_dense", "nonzero", "masked_select"}:
            self.reads += 1
        return result


class _Enough(Exception):
    pass


@cache
def task_on_both(task: str) -> tuple[Task, Task]:
    """The task on the CPU and on the meta device; no norm changes it."""
    config = compose(SMALL[task])
    on_cpu: Any = network.make_task(config, CPU)
    on_device: Any = network.make_task(config, META)
    if task == "style":
        targets: dict[str, Tensor] = on_cpu._targets
        on_device.__dict__["_targets"] = {k: t.to(META) for k, t in targets.items()}
    return on_cpu, on_device


def steps_on_the_device(
    task: str, name: str, wrap: Callable[[nn.Module], nn.Module] = lambda model: model
) -> None:
    """Two whole steps of training on a device where nothing can be read."""
    config = compose([*SMALL[task], f"norm={name}", "batch_size=4", "norm_batch=2"])
    on_cpu, on_device = task_on_both(task)
    try:
        network.check(config, on_cpu)
    except Incompatible:
        return
    model = wrap(network.build(config, on_cpu).model)
    if any(is_lazy(parameter) for parameter in model.parameters()):
        model(*on_cpu.inputs(torch.arange(4)))
    model.to(META)
    copies = _Copies()
    per_step: list[int] = []

    def after_step(step: int, pending: Sequence[Tensor]) -> None:
        per_step.append(copies.to_device)
        if step == 2:
            raise _Enough

    with copies, pytest.raises(_Enough):
        loop.fit(
            model,
            on_device.loss,
            torch.optim.SGD(model.parameters(), lr=0.1, foreach=True),
            steps=10,
            micro_batches=loop.micro_batches(on_device.splits["train"], 0, 4, 1),
            learning_rate=lambda step: 0.1,
            clip=1.0,
            log_every=10,
            log=lambda *row: None,
            evaluate_at=frozenset(),
            evaluate=lambda step: None,
            after_step=after_step,
        )
    assert copies.reads == copies.blocking == 0, name
    assert 1 <= per_step[0] <= 3, name
    assert per_step == [per_step[0], 2 * per_step[0]], name


@every_task
def test_no_step_waits_for_the_device(task: str) -> None:
    for name in names():
        steps_on_the_device(task, name)


WAITS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda y: y.sum().item(),
    "if": lambda y: bool((y > 0).all()),
    "to the CPU": lambda y: y.cpu(),
    "a shape": lambda y: y[y > 0],
    "a copy": lambda y: y + torch.ones(y.shape[-1]).to(y.device),
}


def test_a_step_that_waits_is_noticed() -> None:
    """The test above can fail."""

    class Waiting(nn.Module):
        def __init__(self, model: nn.Module, wait: Callable[[Tensor], object]) -> None:
            super().__init__()
            self.model, self.wait = model, wait

        def forward(self, *inputs: Tensor) -> Tensor:
            y: Tensor = self.model(*inputs)
            self.wait(y)
            return y

    steps_on_the_device("cnn", "batch")
    for name, wait in WAITS.items():
        waiting = partial(Waiting, wait=wait)
        try:
            steps_on_the_device("cnn", "batch", waiting)
        except (AssertionError, RuntimeError, NotImplementedError):
            continue
        pytest.fail(f"{name} is not noticed")
