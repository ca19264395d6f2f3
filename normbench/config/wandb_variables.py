"""Reads and sets the environment variables of W&B.

A key on the command line takes precedence over a variable, and a variable over a
default. An empty variable counts as not set.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

from normbench.errors import RequestError

MODES = {mode: mode for mode in ("offline", "online", "disabled")}
MODES |= {"dryrun": "offline", "run": "online"}
"""Maps values of WANDB_MODE to modes. "dryrun" and "run" are W&B's older names."""

TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})
FALSE = frozenset({"", "0", "false", "f", "no", "n", "off"})


def tracker_section(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `tracker` section of a config, with null keys set from variables.

    Raises RequestError if one of these variables has an unknown value.
    """
    filled = dict(section)
    if filled.get("name") != "wandb":
        return filled
    if filled.get("mode") is None:
        filled["mode"] = _mode()
    if filled.get("project") is None:
        filled["project"] = os.environ.get("WANDB_PROJECT") or "normbench"
    for key, variable in {"entity": "WANDB_ENTITY", "group": "WANDB_RUN_GROUP"}.items():
        if filled.get(key) is None:
            filled[key] = os.environ.get(variable) or None
    return filled


def _mode() -> str:
    disabled = os.environ.get("WANDB_DISABLED", "").lower()
    if disabled not in TRUE | FALSE:
        raise RequestError(f"WANDB_DISABLED={disabled} is unknown; write true or false")
    if disabled in TRUE:
        return "disabled"
    mode = os.environ.get("WANDB_MODE") or "offline"
    if mode not in MODES:
        raise RequestError(
            f"WANDB_MODE={mode} is unknown; write offline, online or disabled"
        )
    return MODES[mode]


def wandb_folder(results: Path) -> Path:
    """Return the folder of W&B's files: in WANDB_DIR if set, otherwise in `results`.

    Raises RequestError if the path begins with the "~" of an unknown user.
    """
    from_variable = os.environ.get("WANDB_DIR")
    folder = from_variable or results
    try:
        return Path(folder).expanduser() / "wandb"
    except RuntimeError:
        raise RequestError(
            f"{'WANDB_DIR' if from_variable else '--results'}={folder} is in a home "
            f"folder that does not exist; for a folder with the character ~ in its "
            f"name, write ./{folder}"
        ) from None


def run_labels(name: str, job_type: str, tags: list[str]) -> dict[str, Any]:
    """Return the name, job type and tags of a run as arguments of `wandb.init`.

    WANDB_NAME and WANDB_JOB_TYPE replace the arguments. The tags in WANDB_TAGS
    (separated by commas) are added to `tags`.
    """
    return {
        "name": os.environ.get("WANDB_NAME") or name,
        "job_type": os.environ.get("WANDB_JOB_TYPE") or job_type,
        "tags": list(dict.fromkeys([*tags, *_tags()])),
    }


def _tags() -> list[str]:
    tags = map(str.strip, os.environ.get("WANDB_TAGS", "").split(","))
    return list(filter(None, tags))


def not_set(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return `settings` (of `wandb.Settings`) without those that a variable sets."""
    return {
        key: value
        for key, value in settings.items()
        if not os.environ.get(f"WANDB_{key.upper()}")
    }


def clean(*, offline: bool) -> None:
    """Set the variables of W&B's client and delete those that it cannot use.

    By default, the client prints nothing and sends neither error reports nor telemetry
    to W&B. In offline mode, WANDB_ERROR_REPORTING cannot enable error reports.
    """
    os.environ["WANDB_TAGS"] = ",".join(_tags())  # the client refuses an empty tag
    for variable in [name for name in os.environ if name.startswith("WANDB_")]:
        if not os.environ[variable]:
            del os.environ[variable]  # the client refuses an empty value
    if os.environ.get("WANDB_MODE", "offline") not in MODES:
        # The client refuses the value, and does not need it: the config has a mode.
        del os.environ["WANDB_MODE"]
    os.environ.pop("WANDB_RESUME", None)  # normbench decides whether a run resumes
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    if offline:
        os.environ["WANDB_ERROR_REPORTING"] = "false"


def find_folders(spare: Path) -> None:
    """Let W&B use folders in `spare` if its cache and data folders are not writable."""
    defaults = {
        "WANDB_CACHE_DIR": platformdirs.user_cache_dir("wandb"),
        "WANDB_DATA_DIR": platformdirs.user_data_dir("wandb"),
    }
    for variable, folder in defaults.items():
        # The default folder is in HOME. Without HOME, the service of W&B would have no
        # folder and would print its log.
        current = os.environ.get(variable) or (os.environ.get("HOME") and folder)
        if not current or not _is_writable(Path(current)):
            os.environ[variable] = str(spare.absolute() / variable.lower())


def _is_writable(folder: Path) -> bool:
    """Create `folder` if it is missing. Return whether files can be created in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)
