"""The yaml files of the config groups.

This module does not import the classes that the files name, because that is slow.
"""

from functools import cache
from pathlib import Path

from normbench.errors import RequestError
from normbench.system.package_data import data_folder


def config_root() -> Path:
    """Return the folder of the built-in yaml files, in a wheel or in a checkout."""
    return data_folder("configs")


@cache
def groups() -> tuple[str, ...]:
    """Return the names of the config groups, such as "norm", sorted.

    The folder "claim" is left out: a claim is not part of the config of a run.
    """
    folders = (folder for folder in config_root().iterdir() if folder.is_dir())
    return tuple(sorted(f.name for f in folders if f.name != "claim"))


def choices(group: str, config_dir: Path | None = None) -> dict[str, Path]:
    """Return the yaml files that `group=NAME` can choose, by NAME.

    A file in the user's folder `config_dir` replaces a built-in file of the same name.
    """
    require_folder(config_dir)
    roots = [config_root(), *([config_dir] if config_dir else [])]
    files = {f.stem: f for root in roots for f in (root / group).glob("*.yaml")}
    return dict(sorted(files.items()))


def require_folder(config_dir: Path | None) -> None:
    """Raise RequestError if `config_dir`, the user's config folder, does not exist."""
    if config_dir is not None and not config_dir.is_dir():
        raise RequestError(f"--config-dir {config_dir} is not a folder")


def description(file: Path) -> str:
    """Return the first comment of a yaml file, except Hydra's "# @package".

    Raises Damaged or Unreadable if the file cannot be read.
    """
    # The import is here because it is slow, and most callers need no content.
    from normbench.system.untrusted import MAX_YAML_BYTES, content

    text = content(file, MAX_YAML_BYTES, follow=True).decode(errors="replace")
    for line in text.splitlines():
        if line.startswith("#") and not line.startswith("# @"):
            return line.removeprefix("#").strip()
    return ""
