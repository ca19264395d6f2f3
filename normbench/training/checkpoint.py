"""The checkpoint of an unfinished run, replaced as a whole and verified when read.

A file is MAGIC, the SHA-256 of the payload (32 bytes), and the payload: a `State` as
`torch.save` writes its fields.
"""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from normbench.errors import NormbenchError
from normbench.records.store import CHECKPOINT, HISTORY
from normbench.system import untrusted
from normbench.system.atomic import write_atomically

MAGIC = b"normbench checkpoint 3\n"
HEADER = len(MAGIC) + hashlib.sha256().digest_size


@dataclass(frozen=True)
class State:
    """The whole state of training after `step` optimiser steps.

    `step` is also the position in the order of the data; `random` holds the states of
    the random streams of each process; `pending` holds the losses that are in no row of
    the history yet; the history is `history` bytes long. A run continues only from a
    state of the same `identity`.
    """

    identity: Mapping[str, Any]
    step: int
    model: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    random: Sequence[Sequence[Tensor]]
    pending: Sequence[Tensor]
    history: int
    started: str
    seconds: Mapping[str, float]
    scaler: Mapping[str, Any] = field(default_factory=dict)


class _Damaged(Exception):
    """The file is not what was written, or its history is not."""


def random_states(device: torch.device) -> list[Tensor]:
    """The states of the random streams that a run on `device` draws from."""
    states = [torch.get_rng_state()]
    if device.type != "cpu":
        states.append(torch.get_device_module(device).get_rng_state())
    return states


def set_random_states(states: Sequence[Tensor], device: torch.device) -> None:
    """Set the random streams to what `random_states(device)` returned."""
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.get_device_module(device).set_rng_state(state)


def save(folder: Path, state: State) -> None:
    """Replace the checkpoint in `folder`; the old one stays if OSError is raised."""
    buffer = io.BytesIO()
    torch.save(vars(state), buffer)
    payload = buffer.getvalue()
    digest = hashlib.sha256(payload).digest()
    write_atomically(folder / CHECKPOINT, MAGIC + digest + payload)


def latest(
    folder: Path, identity: Mapping[str, Any], warn: Callable[[str], None]
) -> State | None:
    """The state in `folder` to continue from, or None to start from the beginning.

    A checkpoint that is damaged or has another `identity` does not count; `warn` gets
    one line with the reason. Raises NormbenchError where the disk does not give the
    file, which may be whole.
    """
    path = folder / CHECKPOINT
    try:
        state = _read(path)
    except FileNotFoundError:
        return None
    except _Damaged as error:
        warn(f"{path} is of no use ({error}): the run starts again")
        return None
    except OSError as error:
        raise NormbenchError(
            f"the checkpoint of the run cannot be read: {error.strerror} "
            f"({error.filename}); nothing is lost, and the same command tries again; "
            "remove the file to start without it"
        ) from None
    changed = [key for key in identity if identity[key] != state.identity.get(key)]
    if changed:
        warn(f"{path} is of another {', '.join(changed)}: the run starts again")
        return None
    return state


def _read(path: Path) -> State:
    untrusted.require_file(path)
    with path.open("rb") as file:
        header = file.read(HEADER)
        if not header.startswith(MAGIC):
            raise _Damaged("it is no checkpoint of this version of normbench")
        try:
            payload = file.read()
        except (MemoryError, OverflowError):
            raise _Damaged("it is larger than the memory") from None
    if header != MAGIC + hashlib.sha256(payload).digest():
        raise _Damaged("its checksum does not match")
    try:
        plain = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        state = State(**plain)
        if not isinstance(state.identity, dict) or state.step < 1 or state.history < 0:
            raise ValueError("no state of a run")
    except Exception as error:  # whole, but not what torch loads as data
        raise _Damaged(f"torch cannot load it: {type(error).__name__}") from None
    try:
        length = path.with_name(HISTORY).stat().st_size
    except FileNotFoundError:
        length = 0
    if state.history > length:
        raise _Damaged("the history is shorter than it was")
    return state
