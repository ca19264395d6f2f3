"""A config's task and network: built, and checked before anything is run."""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from normbench.config.schema import Options, RunConfig
from normbench.data.base import REGISTRY as DATA
from normbench.errors import Incompatible, RequestError
from normbench.norms import reparam
from normbench.norms.base import REGISTRY as NORMS
from normbench.norms.factory import NormFactory
from normbench.tasks.base import REGISTRY as TASKS
from normbench.tasks.base import Task


def choose_device(name: str) -> torch.device:
    """The device called `name`, such as "cuda:1" for the second of several.

    "auto" is CUDA if available, else MPS, else CPU. Raises RequestError where this
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
            f"device={name} is not here; available: {', '.join(available)}"
        )
    return torch.device(name)


def turn_off_tf32() -> None:
    """Let CUDA multiply float32 in float32.

    By default torch lets convolutions round their factors to 10 bits (TF32).
    """
    with warnings.catch_warnings():
        # Not every supported torch has torch.backends.*.fp32_precision, and torch's
        # compiler fails where that is set, because it reads this option.
        warnings.filterwarnings("ignore", ".*control TF32 behavior", UserWarning)
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


@cache
def require_compiler(device: torch.device) -> None:
    """Raise RequestError where torch.compile does not work for `device`.

    Compiles something small, which takes seconds the first time.
    """
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(2, device=device))
    except Exception as error:  # of any type: a compiler, headers, Triton are missing
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise RequestError(
            f"compile=true does not work for device={device.type} here: {reason}; set "
            "compile=false, or install what is missing (on the CPU, a C++ compiler)"
        ) from None


def make_task(config: RunConfig, device: torch.device) -> Task:
    """The task of `config`; the data of the last task are used again if they fit."""
    data = _load(config.data.name, config.data.options, config.seed)
    task: Any = TASKS.get(config.task.name)
    return cast(Task, task(data, device, **config.task.options))


_loaded: dict[str, Any] = {}


def _load(name: str, options: Options, seed: int) -> Any:
    key = json.dumps([name, options, seed])
    if key not in _loaded:
        _loaded.clear()  # first: two data sets may not fit into memory
        _loaded[key] = DATA.get(name)(**options).load(seed)
    return _loaded[key]


@dataclass(frozen=True)
class Network:
    """A network, and the factory that made the norms in it."""

    model: nn.Module
    norms: NormFactory


def build(config: RunConfig, task: Task, processes: int = 1) -> Network:
    """A new network; its weights come from the global random stream.

    `processes` is how many train it, each with an equal share of every micro-batch.
    """
    share = config.batch_size // config.accumulate // processes
    norms = NormFactory(
        config.norm.name,
        config.norm.options,
        norm_batch=config.norm_batch,
        forwards_per_step=config.accumulate * max(1, share // config.norm_batch),
        conditions=task.conditions,
    )
    model = task.build(norms)
    reparam.apply(model, config.reparam)
    return Network(model, norms)


def try_on_meta(
    config: RunConfig, task: Task, see: Callable[[Tensor], None] | None = None
) -> None:
    """Build the network and run it on a micro-batch on the meta device, without values.

    `see` gets the input of each norm, (N, C, *spatial). Raises what the network raises.
    """

    def before_forward(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if see is not None:
            see(arguments[0])

    first = task.splits["train"][: config.batch_size // config.accumulate]
    inputs = [tensor.to("meta") for tensor in task.inputs(first)]
    with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.no_grad():
        network = build(config, task)
        for norm in network.norms.modules:
            norm.register_forward_pre_hook(before_forward)
        network.model.train()(*inputs)


def check(config: RunConfig, task: Task) -> None:
    """Raise RequestError where `config` cannot be run on `task`.

    The network is built and run on one micro-batch on the meta device: real channels
    and shapes, without the computation. A process does that once for each `shapes`.
    """
    samples = len(task.splits["train"])
    if config.batch_size > samples:
        raise RequestError(
            f"batch_size={config.batch_size} is above the {samples} training samples "
            f"of data={config.data.name}; at most {samples} is possible"
        )
    if config.channels_last and not task.has_images:
        raise RequestError(
            f"channels_last=true is for images, and task={task.name} has none; leave "
            "it out"
        )
    if config.precision == "fp16" and not NORMS.get(config.norm.name).loss_scaling:
        raise Incompatible(
            f"norm={config.norm.name} cannot work with precision=fp16, whose scale "
            "of the loss changes while its backward pass remembers gradients; "
            "precision=bf16 needs no scale"
        )
    key = shapes(config)
    if key in _checked:
        return
    where = f"norm={config.norm.name} cannot work in task={task.name}"
    if NORMS.get(config.norm.name).fixed_spatial and not task.fixed_spatial:
        raise Incompatible(
            f"{where}: it has parameters for each position, and batches differ in "
            "length; set task.padding=max_length"
        )
    try:
        try_on_meta(config, task)
    except Incompatible as reason:
        raise Incompatible(f"{where}: {reason}") from None
    except (RuntimeError, NotImplementedError) as error:
        raise Incompatible(
            f"{where}: its forward fails on the meta device, where every network is "
            f"checked first: {str(error).splitlines()[0]}"
        ) from error
    _checked.add(key)


_SHAPES = {"task", "data", "norm", "reparam", "precision"}
_SHAPES |= {"batch_size", "accumulate", "norm_batch"}
_checked: set[str] = set()


def shapes(config: RunConfig) -> str:
    """A key that is equal for runs with the same network and shapes of batches."""
    values = config.model_dump(mode="json", include=_SHAPES)
    return json.dumps(values, sort_keys=True)


def incompatible(config: RunConfig) -> str | None:
    """Why the norm cannot work in the network, or None if it can."""
    try:
        check(config, make_task(config, torch.device("cpu")))
    except Incompatible as reason:
        return str(reason)
    return None
