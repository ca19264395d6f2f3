"""The rates of a race that has begun its test seeds, kept for the next command.

A command with more time could tune further, choose other rates, and look again. Then
each command would be a new chance of a wrong statement, and finished test seeds at the
old rates would not count. So the first test seed fixes the rates and the dropped arms.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from normbench.claims.halving import MIN_ARMS, Tuned
from normbench.errors import NormbenchError, RequestError, Unreadable
from normbench.records.store import Results
from normbench.system import untrusted
from normbench.system.atomic import write_atomically
from normbench.verdicts.registration import Claim, registration_hash

FOLDER = "races"


class Kept(BaseModel):
    """The tuned arms of a race by name."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal[1] = 1
    arms: dict[str, Tuned]

    @model_validator(mode="after")
    def _check_arms(self) -> Self:
        if sum(tuned.dropped is None for tuned in self.arms.values()) < MIN_ARMS:
            raise ValueError(f"fewer than {MIN_ARMS} arms are left")
        for arm, tuned in self.arms.items():
            if tuned.tried and tuned.lr not in tuned.tried:
                raise ValueError(f"the rate {tuned.lr:g} of {arm} was not tried")
        return self


def kept_file(claim: Claim, results: Results) -> Path:
    """Return the path of the file of the race that `claim` describes."""
    return results.folder / FOLDER / f"{registration_hash(claim)}.json"


def read_kept(path: Path) -> dict[str, Tuned] | None:
    """Return the tuned arms, or None without a file.

    Raises RequestError if the file is damaged, or if its folder is a link.
    """
    if path.parent.is_symlink():  # the file would be written outside the results
        raise RequestError(f"{path.parent} is a link; put the folder itself there")
    try:
        data = untrusted.content(path, untrusted.MAX_RECORD_BYTES)
        return untrusted.parsed(Kept, data, path).arms
    except FileNotFoundError:
        return None
    except (Unreadable, NotADirectoryError) as error:
        why = error.why if isinstance(error, Unreadable) else error.strerror
        raise RequestError(
            f"{path} does not have the rates of a race ({why}); remove it"
        ) from None


def keep(tuned: dict[str, Tuned], path: Path) -> None:
    """Write the tuned arms. Raises NormbenchError if the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, Kept(arms=tuned).model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise NormbenchError(f"{path} cannot be written: {error.strerror}") from None
