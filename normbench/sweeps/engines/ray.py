"""The engine `ray`: tasks of a Ray cluster, each doing a batch of runs.

An address names a running cluster; without one, Ray starts on this machine and ends
with the sweep. Ray itself repeats a task whose process or machine is lost: the runs of
it that are recorded are found, and the current one resumes from its checkpoint.
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
from typing import Any

from normbench.config.schema import RayEngine
from normbench.errors import NormbenchError, RequestError
from normbench.sweeps.engines.base import Batch, Event, Work, blocked, cores
from normbench.sweeps.engines.batches import Cluster
from normbench.sweeps.engines.follower import ATTEMPTS
from normbench.sweeps.engines.worker import do_batch
from normbench.system.signals import not_ignored

REACH, ANSWER = 10.0, 60.0
"""Seconds to wait for a connection to an address, and for a cluster to answer."""
CONNECT = """
import logging, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.ERROR)
"""


@contextmanager
def backend(work: Work, engine: RayEngine) -> Iterator["RayCluster"]:
    """The cluster that `engine` names, or a new one on this machine.

    Raises RequestError if Ray is not installed or the cluster is not reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if engine.address is None:
        # Else what it starts here would listen to other machines, too.
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
        wanted = min(engine.workers or cores(), len(work.runs)) * engine.cpus
        available = max(cores(), engine.workers or 0)
        settings |= {"num_cpus": min(wanted, available), "include_dashboard": False}
    before = signal.getsignal(signal.SIGTERM)  # Ray sets its own
    try:
        # What it starts here must outlive the terminal: the runs are saved first.
        with blocked(*not_ignored("SIGHUP")):
            ray.init(**settings, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = _last_line(error) or type(error).__name__
        if engine.address is not None:
            raise _not_reached(engine.address, reason) from None
        raise RequestError(f"engine=ray cannot start Ray: {reason}") from None
    finally:
        signal.signal(signal.SIGTERM, before)
    try:
        yield RayCluster(work, engine)
    finally:
        with suppress(Exception):  # a cluster that is gone already
            ray.shutdown()


class RayCluster(Cluster):
    """The cluster that this process is connected to."""

    def __init__(self, work: Work, engine: RayEngine) -> None:
        import ray

        has = ray.cluster_resources()
        room = has.get("CPU", 0) // engine.cpus
        if engine.gpus:
            room = min(room, has.get("GPU", 0) // engine.gpus)
        # engine.workers says how far an autoscaling cluster may grow.
        if room < 1 and (engine.address is None or engine.workers is None):
            raise RequestError(
                f"engine.cpus={engine.cpus} engine.gpus={engine.gpus:g} is more than "
                f"Ray has: {has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs"
            )
        slots = engine.workers or int(room)
        super().__init__(
            work, slots, min(engine.runs_per_task, -(-len(work.runs) // slots))
        )
        self._do_batch = ray.remote(
            num_cpus=engine.cpus, num_gpus=engine.gpus, max_retries=ATTEMPTS - 1
        )(do_batch)

    def start(self, batches: Sequence[Batch]) -> list[Any]:
        return [self._do_batch.remote(batch, self.results) for batch in batches]

    def pause(self, tasks: Sequence[Any], seconds: float) -> None:
        import ray

        if tasks:
            ray.wait(list(tasks), num_returns=1, timeout=seconds)
        else:
            time.sleep(seconds)

    def outcome(self, task: Any) -> list[Event] | None:
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

        ray.cancel(task)  # a SIGINT in its process


def require_listening(address: str) -> None:
    """Raise RequestError if nobody listens: Ray itself would try for minutes."""
    parts = re.fullmatch(r"(?:ray://)?(?P<host>[^/]+):(?P<port>\d{1,5})", address)
    if parts is None:
        return  # "auto", or another form that Ray knows
    try:
        socket.create_connection((parts["host"], int(parts["port"])), REACH).close()
    except (OSError, OverflowError) as error:
        raise _not_reached(address, error) from None


def _require_answer(address: str) -> None:
    """Raise RequestError if no cluster of this Ray's version answers in time.

    Another process asks, since Ray's own attempt cannot be ended.
    """
    command = [sys.executable, "-c", CONNECT, address]
    try:
        subprocess.run(
            command, capture_output=True, text=True, timeout=ANSWER, check=True
        )
    except subprocess.TimeoutExpired:
        reason = f"what listens there gave no answer in {ANSWER:g} s"
        raise _not_reached(address, reason) from None
    except subprocess.CalledProcessError as error:
        reason = _last_line(error.stderr) or f"exit {error.returncode}"
        raise _not_reached(address, reason) from None


def _not_reached(address: str, reason: object) -> RequestError:
    return RequestError(
        f"engine.address={address} is not reached: {reason}; "
        f"`ray status --address {address}` says more"
    )


def _last_line(text: object) -> str:
    return str(text).strip().rpartition("\n")[2]
