"""The engine `local`: worker processes on this machine.

A worker process imports torch once and trains one run after another. It holds the lock
of the run's folder meanwhile, so that two sweeps never train the same run.
"""

import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType

import torch

from normbench.config.identity import run_id
from normbench.config.schema import LocalEngine, RunConfig
from normbench.errors import NormbenchError, Stopped
from normbench.records.store import Results
from normbench.sweeps.engines.base import Batch, Event, Work, blocked, cores
from normbench.sweeps.engines.worker import Reporter, do_run
from normbench.system import streams
from normbench.system.imports import import_modules
from normbench.system.signals import terminal_signals
from normbench.training.network import choose_device, require_compiler

EXIT_TIMEOUT = 1.5
"""Seconds that idle workers have to exit at the end of a sweep."""


def require_devices(configs: Iterable[RunConfig]) -> None:
    """Raise RequestError if a device, or a compiler for it, is missing here."""
    for name, compiled in sorted({(c.device, c.compile) for c in configs}):
        device = choose_device(name)
        if compiled:
            require_compiler(device)


def visible_gpus() -> list[str]:
    """Return the names, as in CUDA_VISIBLE_DEVICES, of the GPUs of this process."""
    count = torch.cuda.device_count()
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    return names.split(",")[:count] if names else [str(i) for i in range(count)]


@contextmanager
def backend(work: Work, engine: LocalEngine) -> Iterator["Pool"]:
    """Yield a pool of worker processes; end them when the block ends.

    A run that takes longer than the engine's timeout is recorded as failed. Raises
    RequestError if this machine lacks a device that a run needs.
    """
    require_devices(work.runs.values())
    pool = Pool(work, engine)
    try:
        yield pool
        pool.dismiss()
    finally:
        pool.kill()


@dataclass
class _Worker:
    """A process, with the run that it trains and that run's deadline, if any.

    `gpu` is the only GPU that the process can use, None for no limit.
    """

    process: BaseProcess
    connection: Connection
    gpu: str | None
    run_id: str | None = None
    deadline: float | None = None


class Pool:
    """A backend of up to `slots` workers; each trains one run at a time."""

    batch_size = 1
    # A worker stops after its training step, which may take long. The wait for it has
    # no limit, but a second interrupt ends it.
    patience = math.inf

    def __init__(self, work: Work, engine: LocalEngine) -> None:
        self.slots = min(engine.workers or cores(), len(work.runs))
        # A worker that is limited to one GPU has no device such as cuda:1. So workers
        # are not limited (`gpus` is empty) if a run names such a device.
        has_index = any(":" in config.device for config in work.runs.values())
        self.gpus = [] if has_index else visible_gpus()
        self.timeout = engine.timeout
        self.results = work.results
        self.workers: list[_Worker] = []

    def submit(self, batches: Sequence[Batch]) -> list[_Worker]:
        return [self._assign(config) for batch in batches for config in batch.values()]

    def wait(self, jobs: Sequence[_Worker], seconds: float | None) -> None:
        now = time.monotonic()
        limits: list[float] = [] if seconds is None else [seconds]
        limits += [max(0, w.deadline - now) for w in jobs if w.deadline is not None]
        objects = [item for w in jobs for item in (w.connection, w.process.sentinel)]
        wait(objects, min(limits, default=None))

    def events(self, job: _Worker) -> Iterator[Event]:
        while (event := _next_event(job)) is not None:
            yield event
            if event.kind == "began" and self.timeout is not None:
                job.deadline = time.monotonic() + self.timeout
            elif event.kind not in {"began", "warned"}:
                job.run_id = job.deadline = None
                yield Event("returned")
                return
        if not job.process.is_alive():
            yield Event("died", text=self._remove(job))
        elif job.deadline is not None and time.monotonic() >= job.deadline:
            assert job.run_id is not None and self.timeout is not None
            job.process.kill()
            self._remove(job)
            reason = f"took longer than engine.timeout={self.timeout:g} s"
            yield Event("expired", job.run_id, reason)
            yield Event("returned")

    def stop(self, job: _Worker) -> None:
        job.deadline = None
        job.process.terminate()

    def dismiss(self) -> None:
        """Close the connections, so that idle workers exit, and wait for their exit."""
        for worker in self.workers:
            worker.connection.close()
        deadline = time.monotonic() + EXIT_TIMEOUT
        for worker in self.workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))

    def kill(self) -> None:
        """Kill all workers; no signal interrupts this."""
        with blocked(signal.SIGTERM, *terminal_signals()):
            for worker in self.workers:
                worker.process.kill()
            for worker in self.workers:
                worker.process.join()

    def _assign(self, config: RunConfig) -> _Worker:
        """Give a run to an idle worker, or to a new one."""
        self.workers = [w for w in self.workers if w.run_id or w.process.is_alive()]
        idle = (worker for worker in self.workers if worker.run_id is None)
        worker = next(idle, None) or self._start_worker()
        worker.run_id = run_id(config)
        with suppress(OSError):  # the worker has died: `events` reports it
            worker.connection.send(config)
        return worker

    def _start_worker(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        used_gpus = [worker.gpu for worker in self.workers]
        gpu = min(self.gpus, key=used_gpus.count, default=None)
        # Start the resource tracker now. Otherwise `process.start` would start it, and
        # thereby unblock the signals.
        resource_tracker.ensure_running()
        # A terminal sends its signals to all processes. Workers must not receive them:
        # this process decides how they stop. Workers inherit the mask.
        with blocked(*terminal_signals()):
            connection, worker_end = context.Pipe()
            arguments = (worker_end, self.results, gpu)
            process = context.Process(target=_work, args=arguments)
            process.start()
            # Close this process's copy. Otherwise the connection would stay open when
            # the worker dies.
            worker_end.close()
            worker = _Worker(process, connection, gpu)
            self.workers.append(worker)
        return worker

    def _remove(self, worker: _Worker) -> str:
        """Remove a worker that has died or was killed; return how it died."""
        worker.process.join()
        worker.connection.close()
        self.workers.remove(worker)
        exitcode = worker.process.exitcode
        if exitcode is not None and exitcode < 0:
            return f"was killed by {signal.Signals(-exitcode).name}"
        return f"ended with exit code {exitcode}"


def _next_event(worker: _Worker) -> Event | None:
    """Return the next event that `worker` has sent, None if there is none yet.

    If the connection is closed, wait for the end of the worker's process.
    """
    try:
        if worker.connection.poll():
            event: Event = worker.connection.recv()
            return event
    except (EOFError, OSError):
        worker.process.join()
    return None


def _work(connection: Connection, results: Results, gpu: str | None) -> None:
    """Train the runs that `connection` delivers until it is closed.

    This is the main function of a worker process.
    """
    streams.install()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # CUDA reads it at its first use
    parent = multiprocessing.parent_process()
    assert parent is not None

    def report(event: Event) -> None:
        with suppress(OSError):  # the parent has died; the run does not fail for that
            connection.send(event)

    reporter, terminated = Reporter(report), False

    def terminate(signum: int, frame: FrameType | None) -> None:
        nonlocal terminated
        terminated = True
        if not reporter.training_started:  # no checkpoint is needed
            sys.exit(128 + signum)

    for number in terminal_signals():
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, terminate)
    try:
        import_modules(results.modules)
    except NormbenchError as error:
        connection.send(Event("cannot start", text=str(error)))
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return

    def stop() -> bool:
        return terminated or os.getppid() != parent.pid

    while True:
        try:
            config: RunConfig = connection.recv()
            connection.send(Event("began", run_id(config)))
        except (EOFError, OSError):  # there are no more runs, or the parent has died
            # The exit takes a moment. SIGTERM may end it, as nothing must be saved.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            return
        try:
            connection.send(do_run(config, results, reporter, stop))
        except Stopped:
            sys.exit(128 + signal.SIGTERM)
        except OSError:
            return  # the parent has died; the record is on disk
        if terminated:
            sys.exit(128 + signal.SIGTERM)
        reporter = Reporter(report)
