"""The data models of the config of a run and of its record."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    model_validator,
)

from normbench.config.evaluation import AtEnd as AtEnd
from normbench.config.evaluation import Evaluation as Evaluation
from normbench.config.evaluation import is_ema
from normbench.config.fields import MAX_INT as MAX_INT
from normbench.config.fields import Fraction, PositiveInt
from normbench.config.noise import NormNoise


def _device_name(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:(0|[1-9]\d?))?", name):
        raise ValueError(
            "a device is 'auto', 'cpu', 'cuda', 'mps', or a numbered GPU such as "
            "'cuda:1'"
        )
    return name


Status = Literal["ok", "diverged", "skipped", "failed"]
"""How a run ended. A run is skipped if its norm cannot work in its network."""

Options = dict[str, Any]
"""The options of a class, by name. The registry checks them against its signature."""


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False
    )


class Choice(BaseModel):
    """A norm, task or data set: its name and the options of its class.

    In yaml and JSON, the options are keys beside "name". This model accepts any option,
    because readers of records do not import the classes. `registry.Registry.options`
    checks the options against the signature of the class.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    name: str

    @property
    def options(self) -> Options:
        """The options without the name."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _check_integers(self) -> "Choice":
        for key, value in self.options.items():
            inner = {"": value} if not isinstance(value, dict) else value
            for name, item in inner.items():
                if isinstance(item, int) and abs(item) > MAX_INT:
                    where = f"{key}.{name}" if name else key
                    raise ValueError(f"{where} is a number of more than 16 digits")
        return self


class SGD(_Frozen):
    """Stochastic gradient descent with (Nesterov) momentum.

    If `decay_as` is "lr_schedule", the weights that a norm makes scale-invariant have
    no weight decay. Instead, their learning rate rises so that their directions are the
    same as with weight decay; `training/decay.py` has the formula.
    """

    name: Literal["sgd"]
    momentum: Fraction
    nesterov: bool
    weight_decay: Annotated[float, Field(ge=0)]
    decay_as: Literal["weight_decay", "lr_schedule"] = "weight_decay"

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if self.decay_as == "lr_schedule" and self.nesterov and self.momentum:
            raise ValueError(
                "decay_as=lr_schedule has no exact schedule for Nesterov momentum; "
                "set optimizer.nesterov=false"
            )
        return self


class AdamW(_Frozen):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    name: Literal["adamw"]
    beta1: Fraction
    beta2: Fraction
    eps: PositiveFloat
    weight_decay: Annotated[float, Field(ge=0)]


class Budget(_Frozen):
    """The length of a training: `epochs`, but at most `max_steps` optimizer steps."""

    epochs: PositiveInt
    max_steps: PositiveInt | None


class Checkpoint(_Frozen):
    """An unfinished run saves a checkpoint every `every` steps; None means never."""

    every: PositiveInt | None


class TrackerConfig(_Frozen):
    """The tracker of a run. All fields except `name` are arguments of wandb.init."""

    name: Literal["none", "wandb"]
    mode: Literal["offline", "online", "disabled"] = "offline"
    project: str = "normbench"
    entity: str | None = None
    group: str | None = None


class LocalEngine(_Frozen):
    """Processes on this machine execute the runs of a sweep.

    `workers` is the number of processes; None means one per core. A run that takes
    longer than `timeout` seconds is stopped and fails; None means no limit.
    """

    name: Literal["local"]
    workers: PositiveInt | None
    timeout: PositiveFloat | None


class RayEngine(_Frozen):
    """Tasks of a Ray cluster execute the runs of a sweep.

    Each task executes `runs_per_task` runs. `address` is the address of the cluster. If
    `address` is None, a cluster is started on this machine for the sweep. `workers` is
    the maximum number of simultaneous tasks; None means one per CPU of the cluster. Ray
    reserves `cpus` CPUs and `gpus` GPUs for each task.
    """

    name: Literal["ray"]
    address: str | None
    workers: PositiveInt | None
    runs_per_task: PositiveInt
    cpus: PositiveInt
    gpus: Annotated[float, Field(ge=0)]


class SlurmEngine(_Frozen):
    """The jobs of a Slurm job array execute the runs of a sweep.

    The package submitit submits the jobs. `workers` is the number of jobs. Each job
    requests `minutes`, `cpus`, `gpus` and `partition`. `options` are more parameters
    of submitit. If `cluster` is "local", processes on this machine execute the runs
    instead of Slurm jobs, for a trial.
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
"""The options of an engine, which executes the runs of a sweep."""


class RunConfig(_Frozen):
    """The resolved config of one run, without aliases.

    `ema` is the decay of a moving average of the weights; metrics of the averaged
    network are added. Training uses the first `train_size` samples of the training
    split, in its random order; None means all. What a data set learns from the whole
    training split, such as a vocabulary, stays the same. `init_offset` is added to the
    seed of the initial weights and of dropout, but not to that of the data.

    The fields up to `seed` decide the metrics and the run id. The fields after `seed`
    say where the run executes, how fast, what is measured and what is saved; of these,
    only the numbers of samples in `evaluation` decide metrics.
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
    norm_noise: NormNoise = NormNoise()
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    train_size: PositiveInt | None = None
    budget: Budget
    init_offset: Annotated[int, Field(ge=0, lt=2**32)] = 0
    seed: Annotated[int, Field(ge=0, lt=2**32)]

    device: Annotated[str, AfterValidator(_device_name)]
    threads: Annotated[int, Field(ge=1, le=1024)]
    compile: bool = False
    channels_last: bool = False
    evaluation: Evaluation = Evaluation()
    evaluations: PositiveInt | None
    log_every: PositiveInt | None
    keep_weights: bool
    checkpoint: Checkpoint = Checkpoint(every=None)
    probes: list[str] = []
    tracker: TrackerConfig

    @property
    def measured(self) -> list[AtEnd]:
        """The metrics that this run has at its end, beside those of the test split."""
        names = self.evaluation.measured
        return [name for name in names if self.ema is not None or not is_ema(name)]

    @model_validator(mode="after")
    def _check_decay(self) -> Self:
        if self.optimizer.name == "sgd" and self.optimizer.decay_as == "lr_schedule":
            if self.clip is not None:
                raise ValueError(
                    "optimizer.decay_as=lr_schedule does not work with clip="
                    f"{self.clip}, because the size of the gradients differs from that "
                    "with weight decay; set clip=null"
                )
            if self.reparam != "none":
                raise ValueError(
                    f"optimizer.decay_as=lr_schedule does not work with reparam="
                    f"{self.reparam}; set reparam=none"
                )
        return self


NOT_HASHED = frozenset(
    {"device", "threads", "compile", "channels_last", "evaluations", "log_every"}
    | {"keep_weights", "checkpoint", "probes", "tracker"}
    | {"evaluation.at_end", "evaluation.other_statistics", "evaluation.batch_size"}
)
"""Keys of RunConfig that do not enter the run id.

`device`, `threads`, `compile`, `channels_last` and `evaluation.batch_size` change a
metric only by rounding. `device` also changes the random numbers of dropout. The
environment in a record contains the first four.
"""


def is_hashed(key: str) -> bool:
    """Return whether a config key, such as "norm.num_groups", enters the run id."""
    return NOT_HASHED.isdisjoint({key, key.partition(".")[0]})


class Skipped(_Frozen):
    """A run that a sweep leaves out, because its norm cannot work in its network."""

    config: RunConfig
    reason: str


class Seconds(_Frozen):
    """Wall-clock seconds of the parts of a run. Their sum is nearly its whole time.

    In older records, `evaluate` contains the seconds of the probes, and `probes` is 0.
    """

    setup: float
    train: float
    evaluate: float
    probes: float = 0.0

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return self.setup + self.train + self.evaluate + self.probes


class Environment(_Frozen):
    """The software and hardware of a run, which do not enter the run id.

    `device` is a text that names everything that may change rounding. It begins with
    the device, such as "cpu", or "2 x cpu" for two processes. "compiled" and "channels
    last" follow if the config sets them. `processes` is the number of processes of a
    distributed training. Each process uses `device_batch_size` samples in a step.
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
    """The result of one run, saved in `result.json`.

    - `metrics` have keys "split/name". A value that is not finite is None. Errors are
      in [0, 1], losses are means over samples.
    - `diverged_at` is the optimizer step (from 1) whose loss was not finite.
    - `error` is the traceback of a failed run or the reason of a skipped run.
    - `probes` have keys "probe/quantity".
    - `facts` are numbers that describe the data, such as the share of padding.
    - `data_notes` are sentences about how the user's own data or network were read.
    """

    format: Literal[1] = 1
    run_id: str
    status: Status
    metrics: dict[str, float | None]
    primary_metric: str
    direction: Literal["minimize", "maximize"]
    config: RunConfig
    steps: Annotated[int, Field(ge=0, le=MAX_INT)]
    samples: Annotated[int, Field(ge=0, le=MAX_INT)]
    parameters: Annotated[int, Field(ge=0, le=MAX_INT)]
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
