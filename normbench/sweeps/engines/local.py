"""The engine `local`: processes of this machine, each doing one run after another.

A worker is spawned, imports torch once, and does runs until there are none left. It
holds the lock of the run's folder while it works, so that two sweeps never do a run
twice; the parent only plans, listens and replaces. Nothing is lost with a process: what
is finished is on disk, and a run that was going on resumes from its checkpoint.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType

import torch

from normbench.config.schema import LocalEngine, RunConfig
from normbench.config.user_modules import import_modules
from normbench.errors import NormbenchError, RequestError, Stopped
from normbench.records.store import Results
from normbench.sweeps.engines import Work, cores, held
from normbench.sweeps.engines.ledger import Ledger
from normbench.sweeps.engines.worker import (
    Elsewhere,
    Ended,
    Unrecorded,
    Whisper,
    do_run,
)
from normbench.system import streams
from normbench.system.signals import of_the_terminal
from normbench.training.network import choose_device, require_compiler

LEAVING = 1.5
"""Seconds that a worker has to leave once there is nothing more to do."""


def require_devices(configs: Iterable[RunConfig]) -> None:
    """Raise RequestError where a device, or a compiler for it, is not here."""
    for name, compiled in sorted({(each.device, each.compile) for each in configs}):
        device = choose_device(name)
        if compiled:
            require_compiler(device)


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls the devices that this process may use."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(i) for i in range(count)]


def run_all(work: Work, engine: LocalEngine) -> None:
    """As `engines.run_all`; a run that takes longer than the engine's timeout fails.

    Raises RequestError where a device is not here, too.
    """
    require_devices(work.runs.values())
    work.announce(engine.workers or cores())
    pool = _Pool(work, engine)
    try:
        work.observer.start(len(work.runs), work.forecast.seconds())
        pool.empty_queue()
    except (KeyboardInterrupt, NormbenchError):
        pool.stop()
        raise
    finally:
        pool.kill()
        work.observer.close()


@dataclass(frozen=True)
class _CannotStart:
    reason: str


@dataclass(frozen=True)
class _Began:
    pass


@dataclass(frozen=True)
class _Warning:
    text: str


_Message = _CannotStart | _Began | _Warning | Ended | Elsewhere | Unrecorded


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    gpu: str | None
    run_id: str | None = None
    began: bool = False
    deadline: float | None = None

    def rest(self) -> None:
        """Mark the worker as idle."""
        self.run_id, self.began, self.deadline = None, False, None


class _Pool:
    """The workers, what they do, and what is left to do."""

    def __init__(self, work: Work, engine: LocalEngine) -> None:
        self.work = work
        self.size = min(engine.workers or cores(), len(work.runs))
        # A worker that is dealt a device sees no other: cuda:1 would not be there.
        named = any(":" in config.device for config in work.runs.values())
        self.gpus = [] if named else visible_gpus()
        self.timeout = engine.timeout
        self.queue = deque(work.runs)
        self.ledger = Ledger(work)
        self.workers: list[_Worker] = []

    def empty_queue(self) -> None:
        """Until every run has come to an end."""
        while True:
            self._assign()
            busy = [worker for worker in self.workers if worker.run_id is not None]
            if not busy and self.ledger.next_look is None:
                break
            wait(
                [part for w in busy for part in (w.connection, w.process.sentinel)],
                self._until_next_event(busy),
            )
            for worker in busy:
                self._hear(worker)
                self._expire(worker)
        for worker in self.workers:
            worker.connection.close()  # the end of its work: it leaves by itself
        deadline = time.monotonic() + LEAVING
        for worker in self.workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))

    def stop(self) -> None:
        """Have the workers write their checkpoints after a step, and leave.

        However long that step takes: another interrupt ends the waiting.
        """
        self.work.observer.stopping()
        for worker in self.workers:
            worker.process.terminate()
        for worker in self.workers:
            worker.process.join()

    def kill(self) -> None:
        """End what is still there, whatever is pressed meanwhile."""
        with held(signal.SIGTERM, *of_the_terminal()):
            for worker in self.workers:
                worker.process.kill()
            for worker in self.workers:
                worker.process.join()

    def _assign(self) -> None:
        self.queue += self.ledger.due()
        self.workers = [w for w in self.workers if w.run_id or w.process.is_alive()]
        idle = [worker for worker in self.workers if worker.run_id is None]
        while self.queue:
            if idle:
                worker = idle.pop()
            elif len(self.workers) < self.size:
                worker = self._hire()
            else:
                return
            worker.run_id = self.queue.popleft()
            try:
                worker.connection.send(self.work.runs[worker.run_id])
            except OSError:
                self._bury(worker)

    def _hire(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        taken = [worker.gpu for worker in self.workers]
        gpu = min(self.gpus, key=taken.count, default=None)
        resource_tracker.ensure_running()  # lest it comes with the worker, and unmasks
        # A worker inherits that it hears neither Ctrl-C nor the end of the terminal,
        # which reach every process of it: the parent decides what they mean.
        with held(*of_the_terminal()):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_work,
                args=(
                    theirs,
                    self.work.results,
                    gpu,
                ),
            )
            process.start()
            theirs.close()  # so that a dead worker is the end of the connection
            worker = _Worker(process, ours, gpu)
            self.workers.append(worker)
        return worker

    def _until_next_event(self, busy: Sequence[_Worker]) -> float | None:
        times = [worker.deadline for worker in busy if worker.deadline is not None]
        if self.ledger.next_look is not None:
            times.append(self.ledger.next_look)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _hear(self, worker: _Worker) -> None:
        """Everything that `worker` has said; its death last."""
        while (message := _next(worker)) is not None:
            self._handle(worker, message)
        if not worker.process.is_alive():
            self._bury(worker)

    def _handle(self, worker: _Worker, message: _Message) -> None:
        run_id = worker.run_id
        assert run_id is not None
        match message:
            case _CannotStart(reason):
                raise RequestError(f"a worker cannot start: {reason}")
            case _Began():
                worker.began = True
                self.ledger.workers_can_begin()
                self.work.observer.began(run_id, self.work.runs[run_id])
                if self.timeout is not None:
                    worker.deadline = time.monotonic() + self.timeout
                return
            case _Warning(text):
                self.work.observer.warn(text)
                return
            case Ended(record):
                self.ledger.ended(record)
            case Elsewhere():
                self.ledger.wait_for(run_id)
            case Unrecorded(reason):
                self.ledger.lose(run_id, reason)
        worker.rest()

    def _bury(self, worker: _Worker) -> None:
        """A worker has died: its run is begun once more, or given up."""
        run_id, began = worker.run_id, worker.began
        how = self._dismiss(worker)
        if run_id is None:
            return
        if not began:
            self.ledger.stillborn(how)
        if not began or self.ledger.died_at(run_id, how):
            self.queue.appendleft(run_id)

    def _expire(self, worker: _Worker) -> None:
        run_id, deadline = worker.run_id, worker.deadline
        if run_id is None or deadline is None or time.monotonic() < deadline:
            return
        worker.process.kill()
        self._dismiss(worker)
        self.ledger.give_up(
            run_id, f"took longer than engine.timeout={self.timeout:g} s"
        )

    def _dismiss(self, worker: _Worker) -> str:
        """Forget a worker that is dead, or as good as; how it died."""
        worker.process.join()
        worker.connection.close()
        worker.rest()
        self.workers.remove(worker)
        return _how_it_died(worker.process.exitcode)


def _next(worker: _Worker) -> _Message | None:
    """What `worker` has said and nobody has heard; None where there is nothing.

    One whose connection has ended is dead when this returns.
    """
    try:
        if worker.connection.poll():
            message: _Message = worker.connection.recv()
            return message
    except (EOFError, OSError):
        worker.process.join()
    return None


def _how_it_died(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"was killed by {signal.Signals(-exitcode).name}"
    return f"ended with exit code {exitcode}"


def _work(
    connection: Connection,
    results: Results,
    gpu: str | None,
) -> None:
    """The life of a worker: runs come by `connection` until it is closed."""
    streams.install()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # CUDA reads it at its first use
    parent = multiprocessing.parent_process()
    assert parent is not None

    def warn(text: str) -> None:
        with suppress(OSError):  # the parent is gone: that does not fail a run
            connection.send(_Warning(text))

    whisper, told_to_stop = Whisper(warn), False

    def terminate(signum: int, frame: FrameType | None) -> None:
        nonlocal told_to_stop
        told_to_stop = True
        if not whisper.training:  # there is nothing to save
            sys.exit(128 + signum)

    for number in of_the_terminal():
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, terminate)
    try:
        import_modules(results.modules)
    except NormbenchError as error:
        connection.send(_CannotStart(str(error)))
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return
    while True:
        try:
            config: RunConfig = connection.recv()
            connection.send(_Began())
        except (EOFError, OSError):
            # Leaving takes a moment, in which there is nothing more to save.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            return  # there are no more runs, or no parent
        try:
            end = do_run(
                config,
                results,
                whisper,
                stop=lambda: told_to_stop or os.getppid() != parent.pid,
            )
            connection.send(end)
        except Stopped:
            sys.exit(128 + signal.SIGTERM)
        except OSError:
            return  # the parent is gone; what it wanted is on disk
        if told_to_stop:
            sys.exit(128 + signal.SIGTERM)
        whisper = Whisper(warn)
