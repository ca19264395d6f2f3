"""The data models of the program: the config of a run, and its record."""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    model_validator,
)


def _device_name(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:(0|[1-9]\d?))?", name):
        raise ValueError(
            "a device is 'auto', 'cpu', 'cuda', 'mps', or one of several: 'cuda:0', "
            "'cuda:1', .."
        )
    return name


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False
    )


MOST = 2**53
"""No whole number of a config or a record is larger: up to it, floats are exact."""

Fraction = Annotated[float, Field(ge=0, lt=1)]
PositiveInt = Annotated[int, Field(gt=0, le=MOST)]
Status = Literal["ok", "diverged", "skipped", "failed"]
"""How a run ended. skipped: the norm cannot work in this network or on this data."""

Options = dict[str, Any]
"""Options of a class by name, checked against its signature."""


class Choice(BaseModel):
    """A norm, task or data set: its name, and the options of its class.

    In yaml and JSON the options stand beside the name. The registries check them
    against the signature of the class; this model checks only what every reader needs.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    name: str

    @property
    def options(self) -> Options:
        """The options without the name."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _numbers_are_exact(self) -> "Choice":
        for key, value in self.options.items():
            if isinstance(value, int) and abs(value) > MOST:
                raise ValueError(f"{key} is a number of more than 16 digits")
        return self


class SGD(_Frozen):
    """Stochastic gradient descent with (Nesterov) momentum."""

    name: Literal["sgd"]
    momentum: Fraction
    nesterov: bool
    weight_decay: Annotated[float, Field(ge=0)]


class AdamW(_Frozen):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    name: Literal["adamw"]
    beta1: Fraction
    beta2: Fraction
    eps: PositiveFloat
    weight_decay: Annotated[float, Field(ge=0)]


class Budget(_Frozen):
    """How long a run trains: whole epochs, and at most `max_steps` optimiser steps."""

    epochs: PositiveInt
    max_steps: PositiveInt | None


class Checkpoint(_Frozen):
    """How often an unfinished run is saved: every `every` steps; None: never."""

    every: PositiveInt | None


class TrackerConfig(_Frozen):
    """The tracker of a run; `mode` and the other fields are those of wandb.init."""

    name: Literal["none", "wandb"]
    mode: Literal["offline", "online", "disabled"] = "offline"
    project: str = "normbench"
    entity: str | None = None
    group: str | None = None


class LocalEngine(_Frozen):
    """Processes of this machine do the runs of a sweep.

    `workers` is their number, None = one per core. A run that takes longer than
    `timeout` seconds is given up, None = never.
    """

    name: Literal["local"]
    workers: PositiveInt | None
    timeout: PositiveFloat | None


class RayEngine(_Frozen):
    """Tasks of a Ray cluster, each of which does `runs_per_task` runs in a row.

    `address` is that of the cluster, None = a cluster on this machine for this sweep.
    At most `workers` tasks run at a time, None = as many as the cluster can hold. Ray
    reserves `cpus` and `gpus` for each task.
    """

    name: Literal["ray"]
    address: str | None
    workers: PositiveInt | None
    runs_per_task: PositiveInt
    cpus: PositiveInt
    gpus: Annotated[float, Field(ge=0)]


class SlurmEngine(_Frozen):
    """A Slurm job array, submitted by submitit; each job does a share of the runs.

    `workers` is the number of jobs. Each job asks for `minutes`, `cpus`, `gpus` and
    `partition`; `options` are more parameters of submitit. The cluster "local" uses
    processes of this machine instead of Slurm, to try it out.
    """

    name: Literal["slurm"]
    cluster: Literal["slurm", "local"]
    workers: PositiveInt
    minutes: PositiveInt
    cpus: PositiveInt
    gpus: Annotated[int, Field(ge=0)]
    partition: str | None
    options: dict[str, bool | int | float | str]


Engine = LocalEngine | RayEngine | SlurmEngine
"""How the runs of a plan are done; every engine has `workers`."""


class RunConfig(_Frozen):
    """The resolved config of one run: no aliases, no open defaults.

    The fields up to `seed` decide the metrics and make the run id. The fields after it
    say where and how fast the run is done, and what is kept.
    """

    task: Choice
    data: Choice
    norm: Choice
    reparam: str
    optimizer: Annotated[SGD | AdamW, Field(discriminator="name")]
    lr: PositiveFloat
    lr_rule: Literal["linear", "sqrt", "none"]
    lr_reference_batch_size: PositiveInt
    warmup: Fraction
    clip: PositiveFloat | None
    norm_weight_decay: bool
    batch_size: PositiveInt
    accumulate: PositiveInt
    norm_batch: PositiveInt
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    budget: Budget
    seed: Annotated[int, Field(ge=0, lt=2**32)]

    device: Annotated[str, AfterValidator(_device_name)]
    threads: Annotated[int, Field(ge=1, le=1024)]
    compile: bool = False
    channels_last: bool = False
    evaluations: PositiveInt | None
    log_every: PositiveInt | None
    keep_weights: bool
    checkpoint: Checkpoint = Checkpoint(every=None)
    probes: list[str] = []
    tracker: TrackerConfig


NOT_HASHED = frozenset(
    {"device", "threads", "compile", "channels_last", "evaluations", "log_every"}
    | {"keep_weights", "checkpoint", "probes", "tracker"}
)
"""Fields of RunConfig that say how a run is done, not what it is.

On one machine, only `device`, `threads`, `compile` and `channels_last` can change a
metric, by rounding; the environment of a record holds them. Each kind of `device` draws
another dropout mask.
"""


class Skipped(_Frozen):
    """A run of a plan that is left out: its norm cannot work in its network."""

    config: RunConfig
    reason: str


class Seconds(_Frozen):
    """Wall-clock seconds of the parts of a run; they add up to nearly all of it."""

    setup: float
    train: float
    evaluate: float


class Environment(_Frozen):
    """The software and hardware of a run; recorded, never hashed into its id.

    `device` names everything that may round differently: the device, then "compiled"
    and "channels last" if the config asks for them; "2 x cpu" for two processes. Each
    of the `processes` had `device_batch_size` samples of a step.
    """

    normbench: str
    git_commit: str | None
    git_dirty: bool | None
    source_hash: str
    modules: dict[str, str]
    packages: dict[str, str]
    python: str
    platform: str
    device: str
    threads: int
    processes: int = 1
    device_batch_size: int | None = None


class RunRecord(_Frozen):
    """The result of one run: `result.json`.

    `metrics` have keys "split/name" and are null if not finite. Errors are fractions in
    [0, 1], losses are means over samples. `diverged_at` is the optimiser step (from 1)
    whose loss was not finite. `error` is the traceback of a failed run, or the reason
    of a skipped one. `probes` have keys "probe/quantity". `facts` are numbers that the
    task gives about its data, such as the share of pads in training; `data_notes` say
    in words how a user's own data were read.
    """

    format: Literal[1] = 1
    run_id: str
    status: Status
    metrics: dict[str, float | None]
    primary_metric: str
    direction: Literal["minimize", "maximize"]
    config: RunConfig
    steps: Annotated[int, Field(ge=0, le=MOST)]
    samples: Annotated[int, Field(ge=0, le=MOST)]
    parameters: Annotated[int, Field(ge=0, le=MOST)]
    peak_lr: float
    diverged_at: PositiveInt | None = None
    error: str | None = None
    probes: dict[str, float | None] = {}
    facts: dict[str, float | None] = {}
    data_notes: list[str] = []
    seconds: Seconds
    samples_per_second: float | None
    started: str
    environment: Environment
