"""Checkpoints of unfinished runs: written atomically, verified when read.

A checkpoint file consists of MAGIC, the SHA-256 of the payload (32 bytes), and the
payload. `torch.save` writes the payload: the fields of a `State`.
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
HEADER_SIZE = len(MAGIC) + hashlib.sha256().digest_size


@dataclass(frozen=True)
class State:
    """The state of training after `step` optimiser steps.

    identity   a run resumes only from a state with the identity of the run
    step       also determines the position in the data
    random     states of the random streams of each process
    pending    losses of steps that are not in the history file yet
    history    size of the history file in bytes
    started    date and time (ISO 8601) at which the run was first started
    seconds    time spent so far: one number for each field of `Seconds`
    scaler     state of the GradScaler; empty if the precision is not fp16
    average    state of the WeightAverage; empty without `ema`
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
    average: Mapping[str, Any] = field(default_factory=dict)


class _Damaged(Exception):
    """The checkpoint cannot be used, or the history file is too short for it."""


def random_states(device: torch.device) -> list[Tensor]:
    """Return the states of the random streams that a run on `device` uses."""
    states = [torch.get_rng_state()]
    if device.type != "cpu":
        states.append(torch.get_device_module(device).get_rng_state())
    return states


def set_random_states(states: Sequence[Tensor], device: torch.device) -> None:
    """Restore the random streams from the result of `random_states(device)`."""
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.get_device_module(device).set_rng_state(state)


def save(folder: Path, state: State) -> None:
    """Replace the checkpoint in `folder`; an OSError leaves the old checkpoint."""
    buffer = io.BytesIO()
    torch.save(vars(state), buffer)
    payload = buffer.getvalue()
    digest = hashlib.sha256(payload).digest()
    write_atomically(folder / CHECKPOINT, MAGIC + digest + payload)


def latest(
    folder: Path, identity: Mapping[str, Any], warn: Callable[[str], None]
) -> State | None:
    """Return the state in `folder` to resume from, or None to start from the beginning.

    If the checkpoint is damaged or has another `identity`, this function calls `warn`
    with the reason in one line and returns None. If the file exists but cannot be read
    now, the checkpoint may still be intact; then NormbenchError is raised.
    """
    path = folder / CHECKPOINT
    try:
        state = _read(path)
    except FileNotFoundError:
        return None
    except _Damaged as error:
        warn(f"{path} cannot be used ({error}); the run starts from the beginning")
        return None
    except OSError as error:
        raise NormbenchError(
            f"the checkpoint of the run cannot be read: {error.strerror} "
            f"({error.filename}). Nothing is lost. Run the same command to try again, "
            "or remove the file to start from the beginning"
        ) from None
    changed = [key for key in identity if identity[key] != state.identity.get(key)]
    if changed:
        warn(
            f"{path} was written with another {', '.join(changed)}; the run starts "
            "from the beginning"
        )
        return None
    return state


def _read(path: Path) -> State:
    untrusted.require_file(path)
    with path.open("rb") as file:
        header = file.read(HEADER_SIZE)
        if not header.startswith(MAGIC):
            raise _Damaged("it is not a checkpoint of this version of normbench")
        try:
            payload = file.read()
        except (MemoryError, OverflowError):
            raise _Damaged("it does not fit into memory") from None
    if header != MAGIC + hashlib.sha256(payload).digest():
        raise _Damaged("its checksum does not match")
    try:
        plain = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        state = State(**plain)
        if not isinstance(state.identity, dict) or state.step < 1 or state.history < 0:
            raise ValueError("not the state of a run")
    except Exception as error:  # the checksum matches, but torch refuses the payload
        raise _Damaged(f"torch cannot load it: {type(error).__name__}") from None
    try:
        length = path.with_name(HISTORY).stat().st_size
    except FileNotFoundError:
        length = 0
    if state.history > length:
        raise _Damaged("its history file is shorter than it was")
    return state
