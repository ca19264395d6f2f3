"""What is there, what fits, and what is known to go wrong, before anything runs."""

import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

import torch

from normbench import network, tracking
from normbench.data import cache
from normbench.engines import cores, parallel, ray
from normbench.errors import NormbenchError, RequestError
from normbench.norms.base import REGISTRY as NORMS
from normbench.norms.base import Norm
from normbench.provenance import environment
from normbench.schema import Engine, RunConfig
from normbench.tasks.base import Task
from normbench.train import peak_learning_rate

Level = Literal["ok", "note", "warning", "error"]

FEW_SAMPLES = 16
"""Samples in a norm batch below which BatchNorm's error grows (Wu & He 2018)."""
FEW_VALUES = 16
"""Values in a statistic of one sample below which it is mostly noise."""
REACH = 5.0
"""Seconds in which W&B's server must answer."""
LITTLE_SPACE, NO_SPACE = 2**30, 50 * 2**20
"""Bytes left on the disk of the results that are few, and too few for any sweep."""
ENGINE_EXTRAS = {"ray": "ray", "slurm": "submitit"}
"""The package that an engine needs, which is in the extra of its name."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `do` says what to do about it, "" where nothing."""

    level: Level
    what: str
    why: str
    do: str = ""


def examine(
    config: RunConfig, engine: Engine, results: Path, modules: Sequence[str] = ()
) -> list[Finding]:
    """Everything that can be said of a run, or of a sweep of such runs, beforehand.

    Nothing is trained, and nothing written but data: parsed, and fetched where a run
    would fetch them. A network is asked only about what the request needs of it, for
    seconds. `modules` are the user's own, already imported.
    """
    findings = [*_packages(), *_device(config, engine), *_engine(engine)]
    findings += [*_results(results), _code(modules), _tracker(config)]
    looked_at = "data"
    shapes: list[torch.Size] = []
    try:
        task = network.make_task(config, torch.device("cpu"))
        findings += _data(config, task)
        looked_at = "network"
        network.check(config, task)
        network.try_on_meta(config, task, lambda x: shapes.append(x.shape))
    except NormbenchError as error:
        return [*findings, Finding("error", looked_at, str(error))]
    counts = f"{len(shapes)} norms" if shapes else "no norm"
    findings.append(Finding("ok", "network", f"norm={_norm(config).name}: {counts}"))
    findings += [*_batches(config, task), *_statistics(config, shapes)]
    return [*findings, *_weight_decay(config), *_learning_rate(config)]


def _packages() -> Iterator[Finding]:
    names = ("normbench", "torch", "hydra-core", "wandb")
    said = ", ".join(f"{name} {version(name)}" for name in names)
    yield Finding("ok", "packages", said)
    for extra, packages in sorted(_extras().items()):
        missing = [name for name in packages if not _is_installed(name)]
        if missing:
            yield Finding(
                "note",
                f"extra {extra}",
                f"{', '.join(missing)} not installed",
                f"pip install 'normbench[{extra}]' where you need it",
            )
        else:
            yield Finding("ok", f"extra {extra}", f"{', '.join(packages)} installed")


def _extras() -> dict[str, list[str]]:
    """The packages of each optional extra, as the installed metadata name them."""
    extras: dict[str, list[str]] = {}
    for line in requires("normbench") or ():
        found = re.match(r"([\w.-]+).*;\s*extra\s*==\s*['\"]([\w-]+)['\"]", line)
        if found and found[2] != "dev":
            extras.setdefault(found[2], []).append(found[1])
    return extras


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _device(config: RunConfig, engine: Engine) -> Iterator[Finding]:
    try:
        device = network.choose_device(config.device)
        if config.compile:
            network.require_compiler(device)
    except RequestError as error:
        if engine.name == "local":
            yield Finding("error", "device", str(error))
        else:
            said = f"{error}; the machines of engine={engine.name} may have it"
            yield Finding("note", "device", said)
    else:
        name = environment(device, ()).device
        how = ", compiled" if config.compile else ""
        yield Finding(
            "ok",
            "device",
            f"device={config.device} is {name}, in {config.precision}{how}",
        )
    workers = parallel(engine) if engine.name == "local" else 1
    threads, available = config.threads * workers, cores()
    said = f"{workers} x threads={config.threads} on {available} cores"
    if threads > available:
        yield Finding(
            "warning",
            "threads",
            f"{said}: they wait for each other",
            "lower threads or engine.workers",
        )
    else:
        yield Finding("ok", "threads", said)


def _engine(engine: Engine) -> Iterator[Finding]:
    package = ENGINE_EXTRAS.get(engine.name)
    if package and not _is_installed(package):
        yield Finding(
            "error",
            "engine",
            f"engine={engine.name} needs {package}",
            f"pip install 'normbench[{engine.name}]'",
        )
    elif engine.name == "ray" and engine.address is not None:
        try:
            ray.require_listening(engine.address)
        except RequestError as error:
            yield Finding("error", "engine", str(error))
        else:
            said = f"ray, by engine.address={engine.address}, which was not asked"
            yield Finding("ok", "engine", said)
    elif engine.name == "slurm" and engine.cluster == "slurm":
        if shutil.which("sbatch"):
            yield Finding("ok", "engine", f"slurm, {engine.workers} jobs")
        else:
            yield Finding(
                "error",
                "engine",
                "engine=slurm: there is no sbatch on the PATH",
                "run it on a login node, or engine.cluster=local to try it",
            )
    else:
        yield Finding("ok", "engine", engine.name)


def _results(results: Path) -> Iterator[Finding]:
    there = results.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        yield Finding(
            "error", "results", f"{there} is no folder", "choose other --results"
        )
        return
    if not os.access(there, os.W_OK | os.X_OK):
        yield Finding(
            "error",
            "results",
            f"{there} cannot be written",
            "choose other --results",
        )
    else:
        yield Finding("ok", "results", f"{results} can be written")
    free = shutil.disk_usage(there).free
    said = f"{free / 2**30:.1f} GiB free at {there}"
    if free < NO_SPACE:
        yield Finding("error", "disk", said, "make room, or choose other --results")
    elif free < LITTLE_SPACE:
        yield Finding(
            "warning",
            "disk",
            said,
            "a run takes 0.1 MiB, with keep_weights or wandb more: see sweep --dry-run",
        )
    else:
        yield Finding("ok", "disk", said)


def _code(modules: Sequence[str]) -> Finding:
    here = environment(torch.device("cpu"), modules)
    code = f"numerical source {here.source_hash}"
    if here.git_commit is None:
        return Finding("note", "code", f"{code}, in no git checkout")
    code += f", commit {here.git_commit[:10]}"
    if here.git_dirty:
        return Finding(
            "note",
            "code",
            f"{code} with changes that are not committed",
            "commit before runs that others should be able to repeat",
        )
    return Finding("ok", "code", code)


def _tracker(config: RunConfig) -> Finding:
    mode = config.tracker.mode
    if config.tracker.name == "none" or mode == "disabled":
        return Finding("ok", "tracker", "none: the record on disk only")
    if mode == "offline":
        return Finding("ok", "tracker", "W&B offline; `normbench sync` uploads")
    later = "tracker.mode=offline, and `normbench sync` later"
    server, has_key = tracking.account()
    if not has_key:
        said = f"tracker.mode=online, and no key for {server}: runs go on"
        return Finding("warning", "tracker", said, f"`wandb login`, or {later}")
    if not tracking.answers(server, REACH):
        said = f"tracker.mode=online: {server} is silent for {REACH:g} s; runs go on"
        return Finding("warning", "tracker", said, later)
    said = f"W&B online at {server}, with a key that was not tried"
    return Finding("ok", "tracker", said)


def _data(config: RunConfig, task: Task) -> Iterator[Finding]:
    """The sizes of the parts, and what data of the user's own were understood as."""
    sizes = ", ".join(f"{len(index)} {split}" for split, index in task.splits.items())
    where = f"data={config.data['name']}: {sizes}; parsed data are in {cache.folder()}"
    yield Finding("ok", "data", where)
    for line in task.notes.understood:
        yield Finding("ok", "data", line)
    for line in task.notes.warnings:
        yield Finding("warning", "data", line)


def _norm(config: RunConfig) -> type[Norm]:
    return NORMS.get(config.norm["name"])


def _batches(config: RunConfig, task: Task) -> Iterator[Finding]:
    """Ghost batches that do nothing, and what an epoch leaves over."""
    samples = len(task.splits["train"])
    rest = samples % config.batch_size
    steps = f"{samples // config.batch_size} steps of {config.batch_size} samples"
    if rest == 1:
        yield Finding(
            "note",
            "last batch",
            f"{steps}, and 1 sample that is left out",
            "nothing here; a DataLoader needs drop_last=True, or a statistic of one "
            "sample ends each epoch",
        )
    else:
        yield Finding(
            "ok", "last batch", f"{steps} in an epoch, and {rest} that are left out"
        )
    micro_batch = config.batch_size // config.accumulate
    shared = _norm(config).uses_other_samples
    if config.norm_batch < micro_batch and not shared:
        yield Finding(
            "warning",
            "ghost batches",
            f"norm_batch={config.norm_batch} changes nothing of norm="
            f"{_norm(config).name}, whose samples share no statistics, but the run id",
            f"leave norm_batch at the micro-batch, {micro_batch}",
        )
    elif config.accumulate > 1 and shared:
        yield Finding(
            "note",
            "accumulation",
            f"accumulate={config.accumulate}: statistics are of {config.norm_batch} "
            f"samples, not of the {config.batch_size} in a step",
        )


def relative_noise(samples: int, positions: int) -> tuple[float, float]:
    """How far a channel's batch mean is off, in its standard deviations: least, most.

    The standard error of a mean of n_eff independent values is 1 / sqrt(n_eff) of their
    standard deviation, with Kish's (1965) n_eff = samples * positions / (1 + rho *
    (positions - 1)) where positions of one sample correlate by rho: least is rho = 0,
    most is rho = 1. That of log std is 1 / sqrt(2) of it for normal values. The probe
    `statistic_noise` measures both.
    """
    return 1 / math.sqrt(samples * positions), 1 / math.sqrt(samples)


def values_in_statistic(
    norm: type[Norm], options: Mapping[str, object], shape: torch.Size
) -> int | None:
    """How many values of one sample are in a statistic, at most, by the norm's axes.

    None where it has none. Raises ValueError where those are in words of its own.
    """
    _, channels, *spatial = shape
    widths = {"one channel": 1, "a window of channels": channels}
    widths |= {"all channels": channels}
    groups, size = options.get("num_groups", 1), options.get("group_size")
    if isinstance(size, int):
        widths["one group of channels"] = size
    elif isinstance(groups, int):
        widths["one group of channels"] = channels // groups
    lengths = {"one position": 1, "all positions": math.prod(spatial)}
    counts = []
    for axes in norm.axes.split("; "):
        match axes.split(", "):
            case [_, "one channel", "one position"]:
                continue
            case [_, over, where] if over in widths and where in lengths:
                counts.append(widths[over] * lengths[where])
            case _:
                raise ValueError(
                    f"axes={norm.axes!r} are in no words that are known here"
                )
    return min(counts, default=None)


def _statistics(config: RunConfig, shapes: Sequence[torch.Size]) -> Iterator[Finding]:
    """How many values a statistic has, in the layer where it has the fewest."""
    norm = _norm(config)
    if not shapes:
        return
    if norm.uses_other_samples:
        positions = min(math.prod(shape[2:]) for shape in shapes)
        least, most = relative_noise(config.norm_batch, positions)
        said = (
            f"norm_batch={config.norm_batch} samples of {positions} positions, in the "
            f"smallest layer: a batch mean is off by {least:.0%} to {most:.0%} of a "
            "standard deviation, as positions are independent or alike"
        )
        if config.norm_batch < FEW_SAMPLES:
            yield Finding(
                "warning",
                "samples per statistic",
                said,
                f"norm_batch of {FEW_SAMPLES} or more, or a norm of single samples; "
                "the probe statistic_noise measures it",
            )
        else:
            yield Finding("ok", "samples per statistic", said)
        return
    options = {key: value for key, value in config.norm.items() if key != "name"}
    try:
        counts = [values_in_statistic(norm, options, shape) for shape in shapes]
    except ValueError as error:
        yield Finding(
            "note",
            "values per statistic",
            f"not known of norm={norm.name}, whose {error}",
            'write them as other norms do: "one sample, one channel, all positions"',
        )
        return
    known = [count for count in counts if count is not None]
    if not known:
        yield Finding("ok", "values per statistic", f"norm={norm.name} has none")
        return
    said = (
        f"{min(known)} of one sample, in the smallest layer: a mean is off by up to "
        f"{1 / math.sqrt(min(known)):.0%} of a standard deviation"
    )
    if min(known) < FEW_VALUES:
        yield Finding(
            "warning",
            "values per statistic",
            said,
            "fewer groups, more channels or a higher resolution",
        )
    else:
        yield Finding("ok", "values per statistic", said)


def _weight_decay(config: RunConfig) -> Iterator[Finding]:
    decay = config.optimizer.weight_decay
    on_weights = f"optimizer.weight_decay={decay:g}"
    if decay and config.norm_weight_decay:
        yield Finding(
            "warning",
            "weight decay",
            f"{on_weights} is on the norms' own parameters too: gamma and beta are "
            "pulled to 0, and nothing behind them undoes it",
            "norm_weight_decay=false, unless that is the question",
        )
    else:
        yield Finding(
            "ok", "weight decay", f"{on_weights}, none on the norms' gamma and beta"
        )


def _learning_rate(config: RunConfig) -> Iterator[Finding]:
    """The rate against the batch size: a hint, no more.

    Proportional to the batch for SGD (Goyal et al. 2017), to its square root for Adam
    (Malladi et al. 2022).
    """
    reference, batch = config.lr_reference_batch_size, config.batch_size
    peak = peak_learning_rate(config.lr, config.lr_rule, batch, reference)
    said = f"lr={config.lr:g}, lr_rule={config.lr_rule}: {peak:g} at the peak"
    usual: Literal["linear", "sqrt"]
    usual = "linear" if config.optimizer.name == "sgd" else "sqrt"
    if batch == reference or config.lr_rule == usual:
        yield Finding("ok", "learning rate", said)
        return
    other = peak_learning_rate(config.lr, usual, batch, reference)
    yield Finding(
        "note",
        "learning rate",
        f"{said}; {usual} scaling from {reference} to {batch} samples, usual with "
        f"{config.optimizer.name}, would be {other:g}",
        f"only a hint: tune lr, or lr_rule={usual}",
    )
