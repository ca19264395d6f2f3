"""The environment variables of W&B that count, and those that are set here.

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
"""Values of WANDB_MODE; the last two are W&B's older names."""

TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})
FALSE = frozenset({"", "0", "false", "f", "no", "n", "off"})


def tracker_section(section: Mapping[str, Any]) -> dict[str, Any]:
    """The `tracker` section of a config, with null keys set from the environment.

    Raises RequestError if a variable that is needed has an unknown value.
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
    """The folder of W&B's files: in WANDB_DIR, or else in the results folder.

    Raises RequestError if WANDB_DIR names an unknown home folder.
    """
    chosen = os.environ.get("WANDB_DIR")
    try:
        return Path(chosen or results).expanduser() / "wandb"
    except RuntimeError:
        raise RequestError(
            f"{'WANDB_DIR' if chosen else '--results'}={chosen or results} begins with "
            "~, and there is no such home folder; write ./ before it for a name that "
            "begins so"
        ) from None


def run_labels(name: str, job_type: str, tags: list[str]) -> dict[str, Any]:
    """Name, job type and tags of a run, as arguments of `wandb.init`.

    WANDB_NAME and WANDB_JOB_TYPE replace, WANDB_TAGS (separated by commas) adds.
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
    """Those of `settings` (of `wandb.Settings`) that no variable sets."""
    return {
        key: value
        for key, value in settings.items()
        if not os.environ.get(f"WANDB_{key.upper()}")
    }


def clean(*, offline: bool) -> None:
    """Set or delete the variables that W&B's client and its service read.

    By default the client prints nothing and reports neither errors nor telemetry to its
    vendor; in offline mode, WANDB_ERROR_REPORTING cannot change that.
    """
    os.environ["WANDB_TAGS"] = ",".join(_tags())  # the client refuses an empty tag
    for variable in [name for name in os.environ if name.startswith("WANDB_")]:
        if not os.environ[variable]:
            del os.environ[variable]  # the client refuses an empty value
    if os.environ.get("WANDB_MODE", "offline") not in MODES:
        del os.environ["WANDB_MODE"]  # a key on the command line has replaced it
    os.environ.pop("WANDB_RESUME", None)  # whether a run resumes, its folder says
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    if offline:
        os.environ["WANDB_ERROR_REPORTING"] = "false"


def find_folders(spare: Path) -> None:
    """Use folders in `spare` for W&B's cache and data if the default ones, below HOME,
    are not writable."""
    defaults = {
        "WANDB_CACHE_DIR": platformdirs.user_cache_dir("wandb"),
        "WANDB_DATA_DIR": platformdirs.user_data_dir("wandb"),
    }
    for variable, folder in defaults.items():
        # Without HOME, W&B's service finds no folder, and prints its log.
        chosen = os.environ.get(variable) or (os.environ.get("HOME") and folder)
        if not chosen or not _is_writable(Path(chosen)):
            os.environ[variable] = str(spare.absolute() / variable.lower())


def _is_writable(folder: Path) -> bool:
    """Whether files can be created in `folder`, which is created if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)
