"""The yaml files that can be named, found without importing what they name."""

from functools import cache
from pathlib import Path

from normbench.errors import RequestError


def config_root() -> Path:
    """The folder of the built-in yaml files, in a wheel or in a checkout."""
    package = Path(__file__).parents[1] / "configs"
    return package if package.is_dir() else Path(__file__).parents[2] / "configs"


@cache
def groups() -> tuple[str, ...]:
    """The config groups, such as `norm`; claims are yaml too, but no part of a run."""
    folders = (folder for folder in config_root().iterdir() if folder.is_dir())
    return tuple(sorted(f.name for f in folders if f.name != "claim"))


def choices(group: str, config_dir: Path | None = None) -> dict[str, Path]:
    """The yaml files that `group=NAME` can choose, by name; a user's own win."""
    if config_dir is not None and not config_dir.is_dir():
        raise RequestError(f"--config-dir {config_dir} is not a folder")
    roots = [config_root(), *([config_dir] if config_dir else [])]
    files = {f.stem: f for root in roots for f in (root / group).glob("*.yaml")}
    return dict(sorted(files.items()))


def description(file: Path) -> str:
    """What a yaml says it is: its first comment that is not for Hydra.

    Raises Damaged and Unreadable as `reading.content` does.
    """
    from normbench.system.untrusted import YAML, content  # not for who only wants names

    text = content(file, YAML, follow=True).decode(errors="replace")
    for line in text.splitlines():
        if line.startswith("#") and not line.startswith("# @"):
            return line.removeprefix("#").strip()
    return ""
