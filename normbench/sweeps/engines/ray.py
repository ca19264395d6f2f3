"""The engine `ray`: tasks of a Ray cluster; each task trains a batch of runs.

`engine.address` names a running cluster. Without it, Ray starts on this machine and
ends with the sweep. Ray itself repeats a task whose process or machine is lost. Then
finished runs are not repeated, and the current run resumes from its checkpoint.
"""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from math import ceil
from typing import Any

from normbench.config.schema import RayEngine
from normbench.errors import NormbenchError, RequestError
from normbench.sweeps.engines.base import Batch, Event, Work, blocked, cores
from normbench.sweeps.engines.batches import Cluster
from normbench.sweeps.engines.follower import MAX_DEATHS
from normbench.sweeps.engines.worker import do_batch
from normbench.system.signals import not_ignored

CONNECT_TIMEOUT = 10.0
"""Seconds to wait for a connection to the address of a cluster."""
ANSWER_TIMEOUT = 60.0
"""Seconds to wait until `ray.init` has connected to a cluster."""
CONNECT_PROGRAM = """
import logging, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.ERROR)
"""


@contextmanager
def backend(work: Work, engine: RayEngine) -> Iterator["RayCluster"]:
    """Connect to the cluster that `engine` names, or start one on this machine.

    Raises RequestError if Ray is not installed or the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if engine.address is None:
        # With this, a cluster on macOS or Windows accepts no other machines.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError:
        raise RequestError(
            "engine=ray needs Ray, which is not installed; pip install 'normbench[ray]'"
        ) from None
    if engine.address is not None:
        require_listening(engine.address)
        _require_answer(engine.address)
    settings: dict[str, Any] = {"address": engine.address or "local"}
    if engine.address is None:
        needed = min(engine.workers or cores(), len(work.runs)) * engine.cpus
        limit = max(cores(), engine.workers or 0)
        settings |= {"num_cpus": min(needed, limit), "include_dashboard": False}
    sigterm_handler = signal.getsignal(signal.SIGTERM)  # Ray replaces it
    try:
        # If the terminal closes, Ray's processes must live until the runs are saved.
        with blocked(*not_ignored("SIGHUP")):
            ray.init(**settings, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = _last_line(error) or type(error).__name__
        if engine.address is not None:
            raise _not_reached(engine.address, reason) from None
        raise RequestError(f"engine=ray cannot start Ray: {reason}") from None
    finally:
        signal.signal(signal.SIGTERM, sigterm_handler)
    try:
        yield RayCluster(work, engine)
    finally:
        with suppress(Exception):  # the cluster may have ended already
            ray.shutdown()


class RayCluster(Cluster):
    """The Ray cluster that this process is connected to."""

    def __init__(self, work: Work, engine: RayEngine) -> None:
        import ray

        resources = ray.cluster_resources()
        cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
        parallel_tasks = cpus // engine.cpus
        if engine.gpus:
            parallel_tasks = min(parallel_tasks, gpus // engine.gpus)
        # A running cluster may grow on demand, up to engine.workers tasks.
        may_grow = engine.address is not None and engine.workers is not None
        if parallel_tasks < 1 and not may_grow:
            raise RequestError(
                f"engine.cpus={engine.cpus} engine.gpus={engine.gpus:g} is more than "
                f"Ray has: {cpus:g} CPUs and {gpus:g} GPUs"
            )
        slots = engine.workers or int(parallel_tasks)
        equal_share = ceil(len(work.runs) / slots)
        super().__init__(work, slots, min(engine.runs_per_task, equal_share))
        self._do_batch = ray.remote(
            num_cpus=engine.cpus, num_gpus=engine.gpus, max_retries=MAX_DEATHS - 1
        )(do_batch)

    def start(self, batches: Sequence[Batch]) -> list[Any]:
        return [self._do_batch.remote(batch, self.results) for batch in batches]

    def pause(self, tasks: Sequence[Any], seconds: float) -> None:
        import ray

        if tasks:
            ray.wait(list(tasks), num_returns=1, timeout=seconds)
        else:
            time.sleep(seconds)

    def task_events(self, task: Any) -> list[Event] | None:
        import ray
        from ray.exceptions import (
            RayError,
            RayTaskError,
            TaskCancelledError,
            WorkerCrashedError,
        )

        if not ray.wait([task], timeout=0)[0]:
            return None
        try:
            events: list[Event] = ray.get(task)
        except TaskCancelledError:
            return [Event("returned")]
        except RayTaskError as error:
            reason = f"a Ray worker cannot do runs: {_last_line(error)}"
            raise NormbenchError(reason) from None
        except WorkerCrashedError:
            return [Event("died", text="died")]
        except RayError as error:
            return [Event("died", text=f"was lost ({type(error).__name__})")]
        return events

    def cancel(self, task: Any) -> None:
        import ray

        ray.cancel(task)  # Ray raises KeyboardInterrupt (SIGINT) in the task's process


def require_listening(address: str) -> None:
    """Raise RequestError if no server accepts connections at `address`.

    Ray itself would try to connect for minutes.
    """
    parts = re.fullmatch(r"(?:ray://)?(?P<host>[^/]+):(?P<port>\d{1,5})", address)
    if parts is None:
        return  # "auto", or another form that Ray accepts
    server = parts["host"], int(parts["port"])
    try:
        socket.create_connection(server, CONNECT_TIMEOUT).close()
    except (OSError, OverflowError) as error:
        raise _not_reached(address, error) from None


def _require_answer(address: str) -> None:
    """Raise RequestError unless a cluster of the installed Ray version answers in time.

    The attempt is made in another process, as `ray.init` itself has no time limit.
    """
    command = [sys.executable, "-c", CONNECT_PROGRAM, address]
    try:
        subprocess.run(
            command, capture_output=True, text=True, timeout=ANSWER_TIMEOUT, check=True
        )
    except subprocess.TimeoutExpired:
        reason = f"the server gave no answer in {ANSWER_TIMEOUT:g} s"
        raise _not_reached(address, reason) from None
    except subprocess.CalledProcessError as error:
        reason = _last_line(error.stderr) or f"exit {error.returncode}"
        raise _not_reached(address, reason) from None


def _not_reached(address: str, reason: object) -> RequestError:
    return RequestError(
        f"engine.address={address} is not reached: {reason}; "
        f"`ray status --address {address}` shows details"
    )


def _last_line(text: object) -> str:
    return str(text).strip().rpartition("\n")[2]
