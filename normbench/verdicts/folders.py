"""The two folders that verdicts are read from: the user's, and that of the package.

The user's folder (`--claims`) has the verdicts of the user's own checks. The package
has the verdicts that were committed with its code. This module decides, for each claim,
which of the two its verdict is read from. The remarks, records and models beside the
verdict are read from the same folder. Commands write only to the user's folder.
"""

from pathlib import Path
from typing import Literal

from normbench.system.package_data import data_folder

VERDICT = "verdict.json"
"""The verdict of a full check. A folder of the package has no other verdicts."""

Origin = Literal["folder", "package"]
"""Where a verdict comes from: the user's folder, or the package."""


def package_claims() -> Path:
    """Return the folder of the verdicts that are part of the package."""
    return data_folder("results/claims")


def claim_folder(claims: Path, name: str) -> Path:
    """Return the folder from which the verdict of the claim `name` is read.

    It is that of the package if the package has a full verdict, and `claims`, the
    user's folder, has none. Else it is the claim's folder in `claims`, which may be
    missing.
    """
    own, packaged = claims / name, package_claims() / name
    return packaged if not _has_verdict(own) and _has_verdict(packaged) else own


def origin(claims: Path, name: str) -> Origin | None:
    """Return where the full verdict of a claim comes from; None without a verdict."""
    folder = claim_folder(claims, name)
    if not _has_verdict(folder):
        return None
    return "folder" if folder == claims / name else "package"


def judged_claims(claims: Path, pattern: str = VERDICT) -> list[str]:
    """Return the names of all claims with a verdict in one of the folders, sorted.

    `pattern` matches the names of the files of verdicts.
    """
    files = (
        f for root in (claims, package_claims()) for f in root.glob(f"*/{pattern}")
    )
    return sorted({file.parent.name for file in files})


def no_verdict(claims: Path, name: str) -> str:
    """Return a sentence on where no full verdict of the claim `name` is."""
    return f"neither {claims / name / VERDICT} nor the package has a verdict of {name}"


def _has_verdict(folder: Path) -> bool:
    """Return whether a claim's folder has a full verdict, or something in its place."""
    try:
        (folder / VERDICT).lstat()
    except FileNotFoundError:
        return False
    except OSError:  # reading the verdict raises an error that says why
        return True
    return True
