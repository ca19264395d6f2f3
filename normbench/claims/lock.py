"""When the registration of a claim was committed."""

import subprocess
from pathlib import Path

import yaml
from pydantic import ValidationError

from normbench.config.choices import choices
from normbench.errors import RequestError
from normbench.verdicts.registration import Claim, registration_hash
from normbench.verdicts.verdict import Registered

PACKAGE = Path(__file__).parents[1]


def require_committed(name: str, config_dir: Path | None) -> None:
    """Raise RequestError unless git has the yaml of a claim in its present state.

    The yaml of a claim that was installed with normbench passes.
    """
    path = choices("claim", config_dir)[name].resolve()
    if path.is_relative_to(PACKAGE):
        return
    tracked = _git(path, "ls-files", "--error-unmatch", path.name)
    if (
        tracked is None
        or _git(path, "diff", "--quiet", "HEAD", "--", path.name) is None
    ):
        raise RequestError(
            f"{path} is not committed as it stands; a full check needs a registration "
            "that was fixed before its runs: commit it, or use --budget quick"
        )


def registered(claim: Claim, config_dir: Path | None) -> Registered | None:
    """Return the commit that registered `claim` as it stands, and its time.

    That is the oldest of the latest commits of its yaml that have the same registration
    hash: a later change of a comment is no new registration. None if git does not have
    the yaml, or not its whole history.
    """
    known = choices("claim", config_dir)
    if claim.name not in known:
        return None
    path = known[claim.name].resolve()
    if (_git(path, "rev-parse", "--is-shallow-repository") or "").strip() != "false":
        return None
    # With -m, a merge that combined two versions of the yaml is a commit of it too.
    options = ("--follow", "-m", "--format=%H %cI", "--name-only")
    log = _git(path, "log", *options, "--", path.name)
    if not log:
        return None
    registration = None
    wanted = registration_hash(claim)
    lines = [line for line in log.splitlines() if line]
    for header, name in zip(lines[::2], lines[1::2], strict=True):
        commit, time = header.split()
        if _hash_of(_git(path, "show", f"{commit}:{name}")) != wanted:
            break
        registration = Registered(commit=commit, time=time)
    return registration


def _hash_of(text: str | None) -> str | None:
    """Return the registration hash of a yaml; None if it is no valid claim."""
    try:
        return registration_hash(Claim(**yaml.safe_load(text or "")))
    except (yaml.YAMLError, ValidationError, TypeError):
        return None


def _git(path: Path, *arguments: str) -> str | None:
    """Return what git prints in the folder of `path`; None if git fails."""
    words = ["git", "-C", str(path.parent), *arguments]
    try:
        done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return done.stdout if done.returncode == 0 else None
