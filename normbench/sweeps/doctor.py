"""The checks of `normbench doctor`: this machine, and the config of a run or sweep."""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import torch

from normbench.config.schema import Engine, RunConfig
from normbench.data.reading import cache
from normbench.errors import NormbenchError, RequestError
from normbench.models.finding import Finding, finding
from normbench.records import tracking
from normbench.sweeps.engines import ray
from normbench.sweeps.engines.base import cores, parallel
from normbench.sweeps.engines.local import require_devices
from normbench.sweeps.traps import (
    batches,
    learning_rate,
    statistics,
    weight_decay,
)
from normbench.tasks.base import Task
from normbench.training import network
from normbench.training.environment import device_name, environment

SERVER_TIMEOUT = 5.0
"""Seconds in which W&B's server must answer."""
LOW_DISK_SPACE = 2**30
"""Fewer free bytes on the disk of the results are a warning."""
MIN_DISK_SPACE = 50 * 2**20
"""Fewer free bytes on the disk of the results are an error."""
ENGINE_PACKAGES = {"ray": "ray", "slurm": "submitit"}
"""Package that each engine needs. The extra that installs it has the engine's name."""


def examine(
    config: RunConfig, engine: Engine, results: Path, modules: Sequence[str] = ()
) -> list[Finding]:
    """Return what can be checked before a run, or a sweep of such runs, starts.

    The checks train nothing. They write only to the data cache: parsed data. If a run
    would first download its data, the checks download them too. They use the internet
    only for what `config` needs; without such a download this takes a few seconds.
    `modules` are the names of the user's modules, which are imported already.
    """
    findings = [*_packages(), _device(config, engine), _threads(config, engine)]
    findings += [
        _engine(engine),
        *_results(results),
        _code(config, modules),
        _tracker(config),
    ]
    current_check = "data"
    shapes: list[torch.Size] = []
    try:
        task = network.make_task(config, torch.device("cpu"))
        findings += _data(config, task)
        current_check = "network"
        of_data = len(task.notes.warnings)
        network.check(config, task)
        network.try_network(config, task, lambda x: shapes.append(x.shape))
        of_network = task.notes.warnings[of_data:]
        findings += [Finding("warning", "network", line) for line in of_network]
    except NormbenchError as error:
        return [*findings, Finding("error", current_check, str(error))]
    layers = f"{len(shapes)} norm layers" if shapes else "no norm layer"
    findings.append(Finding("ok", "network", f"norm={config.norm.name}: {layers}"))
    findings += [*batches(config, task), *statistics(config, shapes)]
    return [*findings, weight_decay(config), learning_rate(config)]


def _packages() -> Iterator[Finding]:
    """List the versions of the main packages, and which extras are installed."""
    names = ("normbench", "torch", "hydra-core", "wandb")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    yield Finding("ok", "packages", versions)
    extras: dict[str, list[str]] = {}
    for line in requires("normbench") or ():
        match = re.match(r"([\w.-]+).*;\s*extra\s*==\s*['\"]([\w-]+)['\"]", line)
        if match and match[2] != "dev":
            extras.setdefault(match[2], []).append(match[1])
    for extra, packages in sorted(extras.items()):
        missing = [name for name in packages if not _is_installed(name)]
        what = f"extra {extra}"
        if missing:
            why = f"{', '.join(missing)} not installed"
            do = f"pip install 'normbench[{extra}]' if you need it"
            yield Finding("note", what, why, do)
        else:
            yield Finding("ok", what, f"{', '.join(packages)} installed")


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _device(config: RunConfig, engine: Engine) -> Finding:
    """Check that this machine has the device of `config`."""
    try:
        require_devices([config])
    except RequestError as error:
        if engine.name == "local":
            return Finding("error", "device", str(error))
        why = f"{error}; the machines of engine={engine.name} may have it"
        return Finding("note", "device", why)
    name = device_name(network.choose_device(config.device))
    compiled = ", compiled" if config.compile else ""
    why = f"device={config.device} is {name}, precision={config.precision}{compiled}"
    return Finding("ok", "device", why)


def _threads(config: RunConfig, engine: Engine) -> Finding:
    """Compare the threads of all workers on this machine with its cores."""
    workers = parallel(engine) if engine.name == "local" else 1
    return finding(
        config.threads * workers > cores(),
        "warning",
        "threads",
        f"{workers} x threads={config.threads} on {cores()} cores",
        "use a smaller threads or engine.workers; threads that share a core wait for "
        "each other",
    )


def _engine(engine: Engine) -> Finding:
    """Check that the engine's package is installed and its cluster can be reached."""
    package = ENGINE_PACKAGES.get(engine.name)
    if package and not _is_installed(package):
        why = f"engine={engine.name} needs {package}"
        do = f"pip install 'normbench[{engine.name}]'"
        return Finding("error", "engine", why, do)
    if engine.name == "ray" and engine.address is not None:
        try:
            ray.require_listening(engine.address)
        except RequestError as error:
            return Finding("error", "engine", str(error))
        why = f"ray, engine.address={engine.address} accepts connections"
        return Finding("ok", "engine", f"{why}; its version is not checked")
    if engine.name == "slurm" and engine.cluster == "slurm":
        if shutil.which("sbatch"):
            return Finding("ok", "engine", f"slurm, {engine.workers} jobs")
        why = "engine=slurm: the command sbatch is not on the PATH"
        do = "use a login node of the cluster, or test with engine.cluster=local"
        return Finding("error", "engine", why, do)
    return Finding("ok", "engine", engine.name)


def _results(results: Path) -> Iterator[Finding]:
    """Check that the results folder can be written, and the free space on its disk."""
    path = results.absolute()
    folder = next(p for p in (path, *path.parents) if p.exists())
    if not folder.is_dir():
        why = f"{folder} is not a folder"
        yield Finding("error", "results", why, "choose another --results folder")
        return
    writable = os.access(folder, os.W_OK | os.X_OK)
    yield finding(
        not writable,
        "error",
        "results",
        f"{results} can be written" if writable else f"{folder} cannot be written",
        "choose another --results folder",
    )
    free = shutil.disk_usage(folder).free
    size = f"{free / 2**30:.1f} GiB free at {folder}"
    if free < MIN_DISK_SPACE:
        do = "free some space, or choose another --results folder"
        yield Finding("error", "disk", size, do)
    else:
        do = (
            "a run takes 0.1 MiB, or more with keep_weights or W&B; `normbench sweep "
            "--dry-run` shows how much a sweep takes"
        )
        yield finding(free < LOW_DISK_SPACE, "warning", "disk", size, do)


def _code(config: RunConfig, modules: Sequence[str]) -> Finding:
    """Name the code that the record of a run of `config` will refer to."""
    current = environment(config.device, modules, config)
    why = f"source_hash {current.source_hash}"
    if current.git_commit is None:
        return Finding("note", "code", f"{why}, not in a git repository")
    why += f", commit {current.git_commit[:10]}"
    if current.git_dirty:
        why += " with changes that are not committed"
    do = "commit them first if others should be able to repeat the runs"
    return finding(bool(current.git_dirty), "note", "code", why, do)


def _tracker(config: RunConfig) -> Finding:
    """Check that W&B's server answers and has a key, if runs log to it online."""
    mode = config.tracker.mode
    if config.tracker.name == "none" or mode == "disabled":
        return Finding("ok", "tracker", "none: only the records on disk")
    if mode == "offline":
        return Finding("ok", "tracker", "W&B offline; `normbench sync` uploads")
    offline = "use tracker.mode=offline, and `normbench sync` later"
    server, has_key = tracking.account()
    if not has_key:
        why = f"tracker.mode=online has no key for {server}; runs will log offline"
        return Finding("warning", "tracker", why, f"`wandb login`, or {offline}")
    if not tracking.answers(server, SERVER_TIMEOUT):
        why = (
            f"tracker.mode=online: {server} does not answer within "
            f"{SERVER_TIMEOUT:g} s; runs will log offline"
        )
        return Finding("warning", "tracker", why, offline)
    why = f"W&B online at {server}; a key exists, but it was not tested"
    return Finding("ok", "tracker", why)


def _data(config: RunConfig, task: Task) -> Iterator[Finding]:
    """Return the sizes of the splits, and the notes on how the data were read."""
    sizes = ", ".join(f"{len(index)} {split}" for split, index in task.splits.items())
    why = f"data={config.data.name}: {sizes}; parsed data are in {cache.folder()}"
    yield Finding("ok", "data", why)
    for line in task.notes.understood:
        yield Finding("ok", "data", line)
    for line in task.notes.warnings:
        yield Finding("warning", "data", line)
