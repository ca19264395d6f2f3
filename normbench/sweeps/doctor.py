"""What doctor looks at before anything runs: the machine, the request, its traps."""

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
from normbench.sweeps.engines import ray
from normbench.sweeps.engines.base import cores, parallel
from normbench.sweeps.engines.local import require_devices
from normbench.sweeps.traps import (
    Finding,
    batches,
    finding,
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
"""Free bytes on the results' disk that are few, and too few for any sweep."""
ENGINE_EXTRAS = {"ray": "ray", "slurm": "submitit"}
"""The package that an engine needs, which is in the extra of its name."""


def examine(
    config: RunConfig, engine: Engine, results: Path, modules: Sequence[str] = ()
) -> list[Finding]:
    """All that can be known of a run, or of a sweep of such runs, beforehand.

    Trains nothing, and writes only data: parsed, and downloaded if a run would download
    them. The network is used for seconds, and only as the request needs it. `modules`
    are the user's own, already imported.
    """
    findings = [*_packages(), _device(config, engine), _threads(config, engine)]
    findings += [_engine(engine), *_results(results), _code(modules), _tracker(config)]
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
    return [*findings, weight_decay(config), learning_rate(config)]


def _packages() -> Iterator[Finding]:
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
        yield finding(
            bool(missing),
            "note",
            f"extra {extra}",
            f"{', '.join(missing)} not installed"
            if missing
            else f"{', '.join(packages)} installed",
            f"pip install 'normbench[{extra}]' if you need it",
        )


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _device(config: RunConfig, engine: Engine) -> Finding:
    try:
        require_devices([config])
    except RequestError as error:
        if engine.name == "local":
            return Finding("error", "device", str(error))
        elsewhere = f"{error}; the machines of engine={engine.name} may have it"
        return Finding("note", "device", elsewhere)
    name = environment(network.choose_device(config.device), ()).device
    how = ", compiled" if config.compile else ""
    device = f"device={config.device} is {name}, in {config.precision}{how}"
    return Finding("ok", "device", device)


def _threads(config: RunConfig, engine: Engine) -> Finding:
    workers = parallel(engine) if engine.name == "local" else 1
    return finding(
        config.threads * workers > cores(),
        "warning",
        "threads",
        f"{workers} x threads={config.threads} on {cores()} cores",
        "lower threads or engine.workers; threads on one core wait for each other",
    )


def _engine(engine: Engine) -> Finding:
    package = ENGINE_EXTRAS.get(engine.name)
    if package and not _is_installed(package):
        why = f"engine={engine.name} needs {package}"
        do = f"pip install 'normbench[{engine.name}]'"
        return Finding("error", "engine", why, do)
    if engine.name == "ray" and engine.address is not None:
        try:
            ray.require_listening(engine.address)
        except RequestError as error:
            return Finding("error", "engine", str(error))
        where = f"ray, at engine.address={engine.address}; its version was not asked"
        return Finding("ok", "engine", where)
    if engine.name == "slurm" and engine.cluster == "slurm":
        missing = not shutil.which("sbatch")
        return finding(
            missing,
            "error",
            "engine",
            "engine=slurm: there is no sbatch on the PATH"
            if missing
            else f"slurm, {engine.workers} jobs",
            "run it on a login node, or engine.cluster=local to try it",
        )
    return Finding("ok", "engine", engine.name)


def _results(results: Path) -> Iterator[Finding]:
    folder = next(
        p for p in (results.absolute(), *results.absolute().parents) if p.exists()
    )
    if not folder.is_dir():
        why = f"{folder} is no folder"
        yield Finding("error", "results", why, "choose other --results")
        return
    writable = os.access(folder, os.W_OK | os.X_OK)
    yield finding(
        not writable,
        "error",
        "results",
        f"{results} can be written" if writable else f"{folder} cannot be written",
        "choose other --results",
    )
    free = shutil.disk_usage(folder).free
    size = f"{free / 2**30:.1f} GiB free at {folder}"
    if free < NO_SPACE:
        do = "make room, or choose other --results"
        yield Finding("error", "disk", size, do)
    else:
        do = "a run takes 0.1 MiB, with keep_weights or wandb more: see sweep --dry-run"
        yield finding(free < LITTLE_SPACE, "warning", "disk", size, do)


def _code(modules: Sequence[str]) -> Finding:
    here = environment(torch.device("cpu"), modules)
    code = f"numerical source {here.source_hash}"
    if here.git_commit is None:
        return Finding("note", "code", f"{code}, in no git checkout")
    code += f", commit {here.git_commit[:10]}"
    if here.git_dirty:
        code += " with changes that are not committed"
    do = "commit before runs that others should be able to repeat"
    return finding(bool(here.git_dirty), "note", "code", code, do)


def _tracker(config: RunConfig) -> Finding:
    mode = config.tracker.mode
    if config.tracker.name == "none" or mode == "disabled":
        return Finding("ok", "tracker", "none: the record on disk only")
    if mode == "offline":
        return Finding("ok", "tracker", "W&B offline; `normbench sync` uploads")
    later = "tracker.mode=offline, and `normbench sync` later"
    server, has_key = tracking.account()
    if not has_key:
        why = f"tracker.mode=online, and no key for {server}: runs go on"
        return Finding("warning", "tracker", why, f"`wandb login`, or {later}")
    if not tracking.answers(server, REACH):
        why = f"tracker.mode=online: {server} is silent for {REACH:g} s; runs go on"
        return Finding("warning", "tracker", why, later)
    return Finding("ok", "tracker", f"W&B online at {server}, with a key, not tried")


def _data(config: RunConfig, task: Task) -> Iterator[Finding]:
    """The sizes of the splits, and what was understood of the user's own data."""
    sizes = ", ".join(f"{len(index)} {split}" for split, index in task.splits.items())
    where = f"data={config.data.name}: {sizes}; parsed data are in {cache.folder()}"
    yield Finding("ok", "data", where)
    for line in task.notes.understood:
        yield Finding("ok", "data", line)
    for line in task.notes.warnings:
        yield Finding("warning", "data", line)
