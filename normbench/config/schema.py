"""The data that flows through the program: what a run is asked for and what it left."""

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
    """A norm, task or data set by its name, and the options it is built with.

    In yaml and JSON the options stand beside the name. The registries check them
    against the signature of the class; here only what every reader needs is checked.
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
    """How often an unfinished run is saved: every so many optimiser steps, or never."""

    every: PositiveInt | None


class TrackerConfig(_Frozen):
    """Where a run is mirrored to; `mode` and the rest are those of wandb.init."""

    name: Literal["none", "wandb"]
    mode: Literal["offline", "online", "disabled"] = "offline"
    project: str = "normbench"
    entity: str | None = None
    group: str | None = None


class LocalEngine(_Frozen):
    """Processes of this machine that do the runs of a sweep.

    `workers` is how many, None = one a core; `timeout` the seconds after which a run
    is given up, None = never.
    """

    name: Literal["local"]
    workers: PositiveInt | None
    timeout: PositiveFloat | None


class RayEngine(_Frozen):
    """Tasks of a Ray cluster, each doing `runs_per_task` runs one after another.

    `address` is the cluster's, None = one on this machine, for this sweep alone;
    `workers` how many tasks there are at a time, None = as many as it has room for.
    `cpus` and `gpus` are what Ray keeps for a task.
    """

    name: Literal["ray"]
    address: str | None
    workers: PositiveInt | None
    runs_per_task: PositiveInt
    cpus: PositiveInt
    gpus: Annotated[float, Field(ge=0)]


class SlurmEngine(_Frozen):
    """A Slurm job array, submitted by submitit, each job doing a share of the runs.

    `workers` is how many jobs; `minutes`, `cpus`, `gpus` and `partition` are what each
    of them asks for, `options` any more of submitit's parameters. The cluster "local"
    stands for Slurm with processes of this machine, to try it out.
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
"""What does the runs of a plan; each of them has `workers`."""


class RunConfig(_Frozen):
    """Everything one run is asked for, resolved: no aliases, no open defaults.

    The fields up to `seed` decide the numbers and make the run id; those after it say
    where, how fast and what is kept.
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

On one machine, only `device`, `threads`, `compile` and `channels_last` can move a
metric, by rounding; a record's environment has them. Of dropout each kind of `device`
draws its own.
"""


class Skipped(_Frozen):
    """A run of a plan that is not done: its norm cannot work in its network."""

    config: RunConfig
    reason: str


class Seconds(_Frozen):
    """Wall-clock seconds of a run's parts; they add up to nearly all of it."""

    setup: float
    train: float
    evaluate: float


class Environment(_Frozen):
    """What a run ran on; recorded, never hashed into its id.

    `device` is all that may round differently: its name, then "compiled" and
    "channels last" where they were asked for; of several processes "2 x cpu". Each of
    these `processes` had `device_batch_size` samples of a step.
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
    """What one run left: `result.json`.

    `metrics` are "split/name", null where not finite. Errors are fractions in [0, 1],
    losses are means over samples. `diverged_at` is the optimiser step (from 1) whose
    loss was not finite; `error` is the traceback of a failed run, or the reason of a
    skipped one. `probes` are "probe/quantity", of those that the config asks for;
    `facts` are what the task says of its data, such as the share of pads in training;
    `data_notes` what data of the user's own were understood as, in words.
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
