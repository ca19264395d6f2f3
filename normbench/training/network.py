"""Build the task and network of a config, and check that they work together."""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from normbench.config.rates import peak_lr
from normbench.config.schema import Options, RunConfig
from normbench.data.base import REGISTRY as DATA
from normbench.errors import Incompatible, RequestError
from normbench.norms import reparam
from normbench.norms.base import REGISTRY as NORMS
from normbench.norms.base import Norm
from normbench.norms.factory import NormFactory
from normbench.norms.ghost import Ghost
from normbench.norms.noise import Noise
from normbench.tasks.base import REGISTRY as TASKS
from normbench.tasks.base import Task
from normbench.training import decay
from normbench.training.loop import warmup_cosine


def choose_device(name: str) -> torch.device:
    """Return the device `name`, such as "cpu", "cuda" or "cuda:1".

    "auto" is the first available one of CUDA, MPS and CPU. Raises RequestError if this
    machine does not have the device.
    """
    available = ["cuda"] if torch.cuda.is_available() else []
    available += ["mps"] if torch.backends.mps.is_available() else []
    available += ["cpu"]
    if name == "auto":
        name = available[0]
    if "cuda" in available:
        available += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if name not in available:
        raise RequestError(
            f"device={name} is not available; choose from {', '.join(available)}"
        )
    return torch.device(name)


def turn_off_tf32() -> None:
    """Let CUDA compute float32 products in full precision.

    By default torch lets convolutions round their inputs to TF32 (10 bits).
    """
    with warnings.catch_warnings():
        # Newer versions of torch warn that torch.backends.*.fp32_precision replaces
        # these options. Older versions lack it, and torch.compile fails if it is set.
        warnings.filterwarnings("ignore", ".*control TF32 behavior", UserWarning)
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


@cache
def require_compiler(device: torch.device) -> None:
    """Raise RequestError if torch.compile does not work for `device`.

    Compiles a small function, which takes seconds the first time.
    """
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(2, device=device))
    except Exception as error:  # of any type: the compiler or Triton may be missing
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise RequestError(
            f"compile=true does not work for device={device.type} on this machine: "
            f"{reason}; set compile=false, or install what is missing (the CPU needs a "
            "C++ compiler)"
        ) from None


def norm_class(config: RunConfig) -> type[Norm]:
    """Return the class whose attributes say what the norms of a run need.

    If task=module replaces only some norms, the others need what norm=keep needs.
    """
    keeps = config.task.name == "module" and config.task.options.get("where")
    return NORMS.get("keep" if keeps else config.norm.name)


def make_task(config: RunConfig, device: torch.device) -> Task:
    """Return the task of `config`; reuse the data set of the last call if it is equal.

    A process keeps at most one data set in memory.
    """
    data = _load(config.data.name, config.data.options, config.seed)
    if config.train_size is not None:
        data = _with_train_size(data, config.train_size, config.data.name)
    task: Any = TASKS.get(config.task.name)
    return cast(Task, task(data, device, **config.task.options))


_loaded: dict[str, Any] = {}


def _load(name: str, options: Options, seed: int) -> Any:
    key = json.dumps([name, options, seed])
    if key not in _loaded:
        _loaded.clear()  # before loading: two data sets may not fit into memory
        _loaded[key] = DATA.get(name)(**options).load(seed)
    return _loaded[key]


def _with_train_size(data: Any, size: int, name: str) -> Any:
    """Return `data`, the data set `name`, with the first `size` training samples.

    The split is in random order, so that a smaller size gives a part of the samples of
    a larger size. Raises RequestError if the split has fewer samples.
    """
    samples = data.splits["train"]
    if size > len(samples):
        raise RequestError(
            f"train_size={size} is above the {len(samples)} training samples of "
            f"data={name}; at most {len(samples)} is possible"
        )
    return replace(data, splits=data.splits | {"train": samples[:size]})


def training_steps(config: RunConfig, samples: int) -> int:
    """Return the number of optimizer steps of a run on `samples` training samples."""
    steps = config.budget.epochs * (samples // config.batch_size)
    return min(steps, config.budget.max_steps or steps)


@dataclass(frozen=True)
class Network:
    """A network and the factory that made its norms."""

    model: nn.Module
    norms: NormFactory


def build(config: RunConfig, task: Task, processes: int = 1) -> Network:
    """Return a new network; its weights come from the global random stream.

    `processes` is the number of processes that train the network, each on an equal
    share of every micro-batch.
    """
    share = config.batch_size // config.accumulate // processes
    norms = NormFactory(
        config.norm.name,
        config.norm.options,
        norm_batch=config.norm_batch,
        forwards_per_step=config.accumulate,
        # A norm divides the share of a process into chunks of `norm_batch` samples, or
        # shares its statistics between processes if `norm_batch` is larger.
        chunks=max(1, share // config.norm_batch),
        conditions=task.conditions,
        noise=noise_after_norms(config),
    )
    model = task.build(norms)
    reparam.apply(model, config.reparam)
    return Network(model, norms)


def noise_after_norms(config: RunConfig) -> Noise | None:
    """Return the noise that `config` adds after every norm, or None."""
    section = config.norm_noise
    if section.kind == "none":
        return None
    return Noise(
        section.kind, section.shift, section.scale, section.spread, config.seed
    )


def try_network(
    config: RunConfig, task: Task, on_input: Callable[[Tensor], None] | None = None
) -> None:
    """Build the network and call it on the device `check_device` of its task.

    That is usually the meta device, which computes only shapes. The input is one
    micro-batch. `on_input` is called with the input of each norm, (N, C, *spatial).
    Errors of the network are raised unchanged.
    """

    def before_forward(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if on_input is not None:
            norm = module.norm if isinstance(module, Ghost) else module
            assert isinstance(norm, Norm)
            on_input(arguments[0].movedim(norm.channel_axis, 1))

    first = task.splits["train"][: config.batch_size // config.accumulate]
    device = torch.device(task.check_device)
    inputs = [tensor.to(device) for tensor in task.inputs(first)]
    with torch.random.fork_rng(devices=[]), device, torch.no_grad():
        network = build(config, task)
        for norm in network.norms.modules:
            norm.register_forward_pre_hook(before_forward)
        network.model.train()(*inputs)


def check(config: RunConfig, task: Task) -> None:
    """Raise RequestError if the run of `config` on `task` is not possible.

    The network is tried with `try_network`. In a process, this happens only once for
    all configs with an equal key from `shapes`.
    """
    samples = len(task.splits["train"])
    if config.batch_size > samples:
        raise RequestError(
            f"batch_size={config.batch_size} is above the {samples} training samples "
            f"of data={config.data.name}; at most {samples} is possible"
        )
    if config.channels_last and not task.has_images:
        raise RequestError(
            f"channels_last=true needs images, which task={task.name} does not have; "
            "remove it"
        )
    if config.precision == "fp16" and not NORMS.get(config.norm.name).loss_scaling:
        raise Incompatible(
            f"norm={config.norm.name} cannot work with precision=fp16: the scale of "
            "the loss changes between steps, but this norm reuses gradients of earlier "
            "steps; use precision=bf16, which does not scale the loss"
        )
    _check_schedule(config, task)
    key = shapes(config)
    if key in _checked:
        return
    where = f"norm={config.norm.name} cannot work in task={task.name}"
    if NORMS.get(config.norm.name).fixed_spatial and not task.fixed_spatial:
        raise Incompatible(
            f"{where}: it has parameters for each position, but the batches differ in "
            "length; set task.padding=max_length"
        )
    task.check()
    try:
        try_network(config, task)
    except Incompatible as reason:
        raise Incompatible(f"{where}: {reason}") from None
    except RequestError:
        raise
    except task.failures as error:
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        raise Incompatible(
            f"{where}: its forward pass fails on the {task.check_device} device, on "
            f"which every network is checked first: {first_line}"
        ) from error
    _checked.add(key)


def _check_schedule(config: RunConfig, task: Task) -> None:
    """Raise Incompatible or RequestError if decay_as="lr_schedule" is not possible."""
    steps = training_steps(config, len(task.splits["train"]))
    rate = warmup_cosine(peak_lr(config), steps, config.warmup)
    if decay.scale_invariant_rate(config, rate, steps) is None:
        return
    device = torch.device(task.check_device)
    with torch.random.fork_rng(devices=[]), device:
        network = build(config, task)
    decay.require_scale_invariance(config, network.model)


_SHAPES = {"task", "data", "norm", "norm_noise", "reparam", "precision"}
_SHAPES |= {"batch_size", "accumulate", "norm_batch"}
"""The config keys that decide the network and the shapes of its batches."""
_checked: set[str] = set()


def shapes(config: RunConfig) -> str:
    """Return a key that is equal for runs with equal networks and batch shapes."""
    values = config.model_dump(mode="json", include=_SHAPES)
    return json.dumps(values, sort_keys=True)


def incompatible(config: RunConfig) -> str | None:
    """Return why the norm cannot work in the network, or None if it can."""
    try:
        check(config, make_task(config, torch.device("cpu")))
    except Incompatible as reason:
        return str(reason)
    return None
