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
import traceback
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

from normbench.engines import Work, cores, held
from normbench.errors import Busy, NormbenchError, RequestError, Stopped
from normbench.experiment import record_failure, run_one
from normbench.network import choose_device, require_compiler
from normbench.progress import Silent
from normbench.provenance import import_modules
from normbench.schema import LocalEngine, RunConfig, RunRecord

ATTEMPTS = 2
"""How often a run is begun whose worker dies, before it is recorded as failed."""
STARTS = 3
"""How many workers may die one after another without having begun a run."""
PATIENCE = 1.5
"""Seconds that workers have to write their checkpoints when they are told to stop."""
RETRY = 0.5
"""Seconds before asking again for a run that another process is doing."""


def require_devices(configs: Iterable[RunConfig]) -> None:
    """Raise RequestError where a device, or a compiler for it, is not here."""
    for name, compiled in sorted({(each.device, each.compile) for each in configs}):
        device = choose_device(name)
        if compiled:
            require_compiler(device)


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
class _Ended:
    record: RunRecord


@dataclass(frozen=True)
class _DoneElsewhere:
    pass


@dataclass(frozen=True)
class _Unrecorded:
    reason: str


@dataclass(frozen=True)
class _Warning:
    text: str


_Message = _CannotStart | _Began | _Ended | _DoneElsewhere | _Unrecorded | _Warning


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    run_id: str | None = None
    began: bool = False
    deadline: float | None = None

    def rest(self) -> None:
        """It has no run any more."""
        self.run_id, self.began, self.deadline = None, False, None


class _Pool:
    """The workers, what they do, and what is left to do."""

    def __init__(self, work: Work, engine: LocalEngine) -> None:
        self.work = work
        self.size = min(engine.workers or cores(), len(work.runs))
        self.timeout = engine.timeout
        self.queue = deque(work.runs)
        self.elsewhere: dict[str, float] = {}  # run id -> when to ask for it again
        self.deaths: Counter[str] = Counter()
        self.stillborn = 0
        self.workers: list[_Worker] = []

    def empty_queue(self) -> None:
        """Until every run has come to an end."""
        while True:
            self._assign()
            busy = [worker for worker in self.workers if worker.run_id is not None]
            if not busy and not self.elsewhere:
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
        self._wait_for_exits()

    def stop(self) -> None:
        """Tell the workers to write their checkpoints and leave, and give them time."""
        self.work.observer.stopping()
        for worker in self.workers:
            worker.process.terminate()
        self._wait_for_exits()

    def kill(self) -> None:
        """End what is still there, whatever is pressed meanwhile."""
        with held(signal.SIGINT, signal.SIGTERM):
            for worker in self.workers:
                worker.process.kill()
            for worker in self.workers:
                worker.process.join()

    def _wait_for_exits(self) -> None:
        deadline = time.monotonic() + PATIENCE
        for worker in self.workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))

    def _assign(self) -> None:
        now = time.monotonic()
        for run_id in [key for key, at in self.elsewhere.items() if at <= now]:
            del self.elsewhere[run_id]
            self.queue.append(run_id)
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
        resource_tracker.ensure_running()  # lest it comes with the worker, and unmasks
        # A worker inherits that it does not hear Ctrl-C, which reaches every process
        # of the terminal: the parent decides what it means.
        with held(signal.SIGINT):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_work,
                args=(
                    theirs,
                    self.work.results,
                    tuple(self.work.modules),
                    self.work.redo_stale,
                ),
            )
            process.start()
            theirs.close()  # so that a dead worker is the end of the connection
            worker = _Worker(process, ours)
            self.workers.append(worker)
        return worker

    def _until_next_event(self, busy: Sequence[_Worker]) -> float | None:
        times = [worker.deadline for worker in busy if worker.deadline is not None]
        times += self.elsewhere.values()
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _hear(self, worker: _Worker) -> None:
        """Everything that `worker` has said; its death last."""
        try:
            while worker.connection.poll():
                self._handle(worker, worker.connection.recv())
        except (EOFError, OSError):
            worker.process.join()
        if not worker.process.is_alive():
            self._bury(worker)

    def _handle(self, worker: _Worker, message: _Message) -> None:
        run_id = worker.run_id
        assert run_id is not None
        match message:
            case _CannotStart(reason):
                raise RequestError(f"a worker cannot start: {reason}")
            case _Began():
                worker.began, self.stillborn = True, 0
                self.work.observer.began(run_id, self.work.runs[run_id])
                if self.timeout is not None:
                    worker.deadline = time.monotonic() + self.timeout
                return
            case _Warning(text):
                self.work.observer.warn(text)
                return
            case _Ended(record):
                self._record(record)
            case _DoneElsewhere():
                self._wait_for(run_id)
            case _Unrecorded(reason):
                self._lose(run_id, reason)
        worker.rest()

    def _bury(self, worker: _Worker) -> None:
        """A worker has died: its run is begun once more, or given up."""
        run_id, began = worker.run_id, worker.began
        how = self._dismiss(worker)
        if run_id is None:
            return
        if not began:
            self.stillborn += 1
            if self.stillborn == STARTS:
                raise NormbenchError(
                    f"{STARTS} workers one after another died before they began a run; "
                    f"the last one {how}"
                )
            self.queue.appendleft(run_id)
            return
        self.deaths[run_id] += 1
        if self.deaths[run_id] < ATTEMPTS:
            self.work.observer.warn(
                f"the worker of run {run_id} {how}; it begins once more"
            )
            self.queue.appendleft(run_id)
        else:
            self._give_up(run_id, f"its worker {how}, {ATTEMPTS} times")

    def _expire(self, worker: _Worker) -> None:
        run_id, deadline = worker.run_id, worker.deadline
        if run_id is None or deadline is None or time.monotonic() < deadline:
            return
        worker.process.kill()
        self._dismiss(worker)
        self._give_up(run_id, f"took longer than engine.timeout={self.timeout:g} s")

    def _dismiss(self, worker: _Worker) -> str:
        """Forget a worker that is dead, or as good as; how it died."""
        worker.process.join()
        worker.connection.close()
        worker.rest()
        self.workers.remove(worker)
        return _how_it_died(worker.process.exitcode)

    def _give_up(self, run_id: str, reason: str) -> None:
        try:
            record = record_failure(
                self.work.runs[run_id],
                self.work.results,
                reason,
                modules=self.work.modules,
                redo_stale=self.work.redo_stale,
            )
        except Busy:
            self._wait_for(run_id)
        except NormbenchError as error:
            self._lose(run_id, f"{reason}; {error}")
        else:
            self._record(record)

    def _wait_for(self, run_id: str) -> None:
        self.elsewhere[run_id] = time.monotonic() + RETRY
        self.work.observer.waiting(run_id)

    def _record(self, record: RunRecord) -> None:
        self.work.forecast.learn(record)
        self.work.observer.ended(record, self.work.forecast.seconds())

    def _lose(self, run_id: str, reason: str) -> None:
        self.work.forecast.give_up(run_id, self.work.runs[run_id])
        self.work.observer.unrecorded(run_id, reason)


def _how_it_died(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"was killed by {signal.Signals(-exitcode).name}"
    return f"ended with exit code {exitcode}"


class _Whisper(Silent):
    """What a worker passes on of a run that it does: warnings."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def warn(self, text: str) -> None:
        with suppress(OSError):  # the parent is gone: that does not fail a run
            self._connection.send(_Warning(text))


def _work(
    connection: Connection, results: Path, modules: Sequence[str], redo_stale: bool
) -> None:
    """The life of a worker: runs come by `connection` until it is closed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    idle, told_to_stop = True, False

    def terminate(signum: int, frame: FrameType | None) -> None:
        nonlocal told_to_stop
        told_to_stop = True
        if idle:
            sys.exit(128 + signum)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, terminate)
    message: _Message
    try:
        import_modules(modules)
    except NormbenchError as error:
        connection.send(_CannotStart(str(error)))
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return
    while True:
        try:
            config: RunConfig = connection.recv()
            idle = False
            connection.send(_Began())
        except (EOFError, OSError):
            # Leaving takes a moment, in which there is nothing more to save.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            return  # there are no more runs, or no parent
        try:
            message = _Ended(
                run_one(
                    config,
                    results,
                    modules=modules,
                    observer=_Whisper(connection),
                    redo_stale=redo_stale,
                    stop=lambda: told_to_stop or os.getppid() != parent.pid,
                )
            )
        except Busy:
            message = _DoneElsewhere()
        except Stopped:
            sys.exit(128 + signal.SIGTERM)
        except NormbenchError as error:
            message = _Unrecorded(str(error))
        except Exception:  # whatever it was, the other runs go on
            message = _Unrecorded(traceback.format_exc())
        try:
            connection.send(message)
        except OSError:
            return  # the parent is gone; what it wanted is on disk
        idle = True
        if told_to_stop:
            sys.exit(128 + signal.SIGTERM)
