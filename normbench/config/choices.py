"""The yaml files of the config groups. Imports none of the classes that they name."""

from functools import cache
from pathlib import Path

from normbench.errors import RequestError


def config_root() -> Path:
    """The folder of the built-in yaml files, in a wheel or in a checkout."""
    package = Path(__file__).parents[1] / "configs"
    return package if package.is_dir() else Path(__file__).parents[2] / "configs"


@cache
def groups() -> tuple[str, ...]:
    """The config groups, such as `norm`; a claim is yaml too, but not part of a run."""
    folders = (folder for folder in config_root().iterdir() if folder.is_dir())
    return tuple(sorted(f.name for f in folders if f.name != "claim"))


def choices(group: str, config_dir: Path | None = None) -> dict[str, Path]:
    """The yaml files that `group=NAME` can choose, by name; a user's files win."""
    require_folder(config_dir)
    roots = [config_root(), *([config_dir] if config_dir else [])]
    files = {f.stem: f for root in roots for f in (root / group).glob("*.yaml")}
    return dict(sorted(files.items()))


def require_folder(config_dir: Path | None) -> None:
    """Raise RequestError if a folder of the user's own groups is not a folder."""
    if config_dir is not None and not config_dir.is_dir():
        raise RequestError(f"--config-dir {config_dir} is not a folder")


def description(file: Path) -> str:
    """The first comment of a yaml that is not for Hydra.

    Raises Damaged and Unreadable as `untrusted.content` does.
    """
    from normbench.system.untrusted import YAML, content  # slow to import for names

    text = content(file, YAML, follow=True).decode(errors="replace")
    for line in text.splitlines():
        if line.startswith("#") and not line.startswith("# @"):
            return line.removeprefix("#").strip()
    return ""
