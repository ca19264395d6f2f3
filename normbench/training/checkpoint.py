"""Checkpoints of an unfinished run: whole or not at all, and checked when read.

A file is MAGIC, the SHA-256 of the payload (32 bytes), and the payload: a `State`, and
the SHA-256 of its history, as `torch.save` writes them. The one before it stays as
`checkpoint.previous.pt`.
"""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from normbench.errors import NormbenchError, Stopped
from normbench.records.store import (
    CHECKPOINT,
    HISTORY,
    PREVIOUS_CHECKPOINT,
)
from normbench.system import untrusted
from normbench.system.atomic import write_atomically

MAGIC = b"normbench checkpoint 2\n"
HEADER = len(MAGIC) + hashlib.sha256().digest_size


@dataclass(frozen=True)
class State:
    """All that training goes on from.

    `step` optimiser steps are done, which is also the position in the order of the
    data; `random` are the random streams of each process; `pending` are the losses that
    no row tells yet; the history is `history` bytes long. `identity` is what must be
    the same for the numbers to be the same.
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
    """The file is there, but it, or what goes with it, is not what was written."""


def random_states(device: torch.device) -> list[Tensor]:
    """The states of the random streams that a run on `device` draws from."""
    states = [torch.get_rng_state()]
    if device.type != "cpu":
        states.append(torch.get_device_module(device).get_rng_state())
    return states


def set_random_states(states: Sequence[Tensor], device: torch.device) -> None:
    """Undo what was drawn since `random_states(device)` were these."""
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.get_device_module(device).set_rng_state(state)


def save(folder: Path, state: State) -> None:
    """Write `state` as the folder's checkpoint; the last one becomes the previous.

    Raises OSError where the disk does not take it: then the last one stands.
    """
    buffer = io.BytesIO()
    plain = {field.name: getattr(state, field.name) for field in fields(State)}
    plain["pending"] = torch.stack(list(state.pending)) if state.pending else None
    plain["history_sha256"] = _sha256(folder / HISTORY, state.history)
    torch.save(plain, buffer)
    payload = buffer.getvalue()
    latest = folder / CHECKPOINT
    if latest.exists():
        latest.replace(folder / PREVIOUS_CHECKPOINT)
    write_atomically(latest, MAGIC + hashlib.sha256(payload).digest() + payload)


def latest(
    folder: Path, identity: Mapping[str, Any], warn: Callable[[str], None]
) -> State | None:
    """The last state in `folder` to go on from, or None to start from the beginning.

    A damaged file is removed, as is one whose history is not what the one there is
    begins with.
    A state of another `identity`, such as that of another run, does not count. `warn`
    is told, in one line, why it is not the very last one. Raises NormbenchError, and
    removes nothing, where the disk does not answer: what it holds may be whole.
    """
    damaged = []
    state = None
    try:
        for name in (CHECKPOINT, PREVIOUS_CHECKPOINT):
            try:
                state = _read(folder / name)
                break
            except FileNotFoundError:
                continue
            except _Damaged as error:
                damaged.append(f"{folder / name} is of no use ({error})")
                (folder / name).unlink()  # lest it becomes the previous one
    except OSError as error:
        raise NormbenchError(
            f"what the run goes on from cannot be read: {error.strerror} "
            f"({error.filename}); nothing is lost, and the same command tries again; "
            "remove the file to do without it"
        ) from None
    if state is not None and state.identity != identity:
        changed = [key for key in identity if identity[key] != state.identity.get(key)]
        damaged.append(f"{folder / CHECKPOINT} is of another {', '.join(changed)}")
        state = None
    if damaged:
        where = f"goes on from step {state.step}" if state else "starts again"
        warn(f"{'; '.join(damaged)}: the run {where}")
    return state


def _sha256(path: Path, length: int) -> str:
    """Of the first `length` bytes of a file, or of all where it is shorter."""
    digest = hashlib.sha256()
    if length:
        with path.open("rb") as file:
            while piece := file.read(min(length, 2**20)):
                digest.update(piece)
                length -= len(piece)
    return digest.hexdigest()


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
        pending, sha256 = plain.pop("pending"), plain.pop("history_sha256")
        state = State(**plain, pending=[] if pending is None else pending.unbind())
        if not isinstance(state.identity, dict) or state.step < 1 or state.history < 0:
            raise ValueError("no state of a run")
    except Exception as error:  # whole, but of what torch does not load as data
        raise _Damaged(f"torch cannot load it: {type(error).__name__}") from None
    try:
        history = path.with_name(HISTORY).stat().st_size
    except FileNotFoundError:
        history = 0
    if state.history > history:
        raise _Damaged("the history is shorter than it was")
    if sha256 != _sha256(path.with_name(HISTORY), state.history):
        raise _Damaged("the history is not the one that was written with it")
    return state


@dataclass
class Saver:
    """What a run goes on from, and when it leaves that for the next process.

    Without a folder it leaves nothing: another process of the run does that. `agree`
    is true on every rank if it is true on any rank.
    """

    folder: Path | None
    identity: Mapping[str, Any]
    state: State | None
    _: KW_ONLY
    every: int | None
    stop: Callable[[], bool]
    agree: Callable[[bool], bool]
    warn: Callable[[str], None]
    saved: int = field(default=0, init=False)
    warned: bool = field(default=False, init=False)

    def restore(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler | None,
        device: torch.device,
        rank: int,
    ) -> tuple[int, list[Tensor]]:
        """Set all to the state there is; the steps done, and their losses not told.

        `rank` is that of this process among those of the run.
        """
        if self.state is None:
            return 0, []
        model.load_state_dict(self.state.model)
        optimizer.load_state_dict(dict(self.state.optimizer))
        if scaler is not None:
            scaler.load_state_dict(dict(self.state.scaler))
        set_random_states(self.state.random[rank], device)
        self.saved = self.state.step
        return self.state.step, [loss.to(device) for loss in self.state.pending]

    def after_step(self, step: int, last: bool, state: Callable[[], State]) -> None:
        """Save `state()` where it is time to; raise Stopped where told to stop."""
        stopping = self.agree(self.stop())
        if stopping or (self.every and (last or step % self.every == 0)):
            try:
                now = state()
                if self.folder is not None:
                    save(self.folder, now)
                self.saved = step
            except OSError as error:
                if not self.warned:
                    self.warn(
                        f"no checkpoint can be written to {self.folder} "
                        f"({error.strerror}); the run goes on without"
                    )
                self.warned = True
        if stopping:
            self._raise_stopped(step)

    def between_evaluations(self, steps: int) -> None:
        """Raise Stopped where told to stop and all steps are saved."""
        if self.saved == steps and self.stop():
            self._raise_stopped(steps)

    def _raise_stopped(self, step: int) -> None:
        where = f"goes on from step {self.saved}" if self.saved else "starts it again"
        raise Stopped(f"stopped after step {step}; the same command {where}")
