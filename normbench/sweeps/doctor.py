"""What is there, what fits, and what is known to go wrong, before anything runs."""

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
from normbench.records import tracking
from normbench.sweeps.engines import cores, parallel, ray
from normbench.sweeps.traps import (
    Finding,
    batches,
    learning_rate,
    norm_of,
    statistics,
    weight_decay,
)
from normbench.tasks.base import Task
from normbench.training import network
from normbench.training.environment import environment

REACH = 5.0
"""Seconds in which W&B's server must answer."""
LITTLE_SPACE, NO_SPACE = 2**30, 50 * 2**20
"""Bytes left on the disk of the results that are few, and too few for any sweep."""
ENGINE_EXTRAS = {"ray": "ray", "slurm": "submitit"}
"""The package that an engine needs, which is in the extra of its name."""


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
    findings.append(Finding("ok", "network", f"norm={norm_of(config).name}: {counts}"))
    findings += [*batches(config, task), *statistics(config, shapes)]
    return [*findings, *weight_decay(config), *learning_rate(config)]


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
    where = f"data={config.data.name}: {sizes}; parsed data are in {cache.folder()}"
    yield Finding("ok", "data", where)
    for line in task.notes.understood:
        yield Finding("ok", "data", line)
    for line in task.notes.warnings:
        yield Finding("warning", "data", line)
