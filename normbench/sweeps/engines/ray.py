"""The engine `ray`: tasks of a Ray cluster, each doing a batch of runs.

A cluster that is there already is named by its address; without one, Ray is started on
this machine and ends with the sweep. Ray itself tries a task again whose process or
machine is lost: of its runs, those that are recorded are found, and the one that was
going on resumes from its checkpoint.
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
from normbench.sweeps.engines import Work, cores, held
from normbench.sweeps.engines.batches import Batch, Died, Report, do_batch, follow
from normbench.sweeps.engines.ledger import ATTEMPTS
from normbench.system.signals import not_ignored

REACH, ANSWER = 10.0, 60.0
"""Seconds in which an address must be reached, and in which a cluster must answer."""
CONNECT = """
import logging, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.ERROR)
"""


def run_all(work: Work, engine: RayEngine) -> None:
    """As `engines.run_all`; RequestError where Ray is not installed or not reached."""
    with _connected(engine, len(work.runs)):
        follow(_Ray(engine, work), work)


class _Ray:
    """The cluster that this process is connected to."""

    def __init__(self, engine: RayEngine, work: Work) -> None:
        import ray

        has = ray.cluster_resources()
        room = has.get("CPU", 0) // engine.cpus
        if engine.gpus:
            room = min(room, has.get("GPU", 0) // engine.gpus)
        # A cluster that grows when it is asked to is told how far, by engine.workers.
        if room < 1 and (engine.address is None or engine.workers is None):
            raise RequestError(
                f"engine.cpus={engine.cpus} engine.gpus={engine.gpus:g} is more than "
                f"Ray has: {has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs"
            )
        self.slots = engine.workers or int(room)
        self.batch_size = min(engine.runs_per_task, -(-len(work.runs) // self.slots))
        self._results = work.results.resolved()
        self._work = ray.remote(
            num_cpus=engine.cpus, num_gpus=engine.gpus, max_retries=ATTEMPTS - 1
        )(do_batch)

    def submit(self, batches: Sequence[Batch]) -> list[Any]:
        return [self._work.remote(batch, self._results) for batch in batches]

    def wait(self, jobs: Sequence[Any], seconds: float) -> None:
        import ray

        if jobs:
            ray.wait(list(jobs), num_returns=1, timeout=seconds)
        else:
            time.sleep(seconds)

    def outcome(self, job: Any) -> Report | Died | None:
        import ray
        from ray.exceptions import (
            RayError,
            RayTaskError,
            TaskCancelledError,
            WorkerCrashedError,
        )

        if not ray.wait([job], timeout=0)[0]:
            return None
        try:
            report: Report = ray.get(job)
        except TaskCancelledError:
            return Report()
        except RayTaskError as error:
            raise NormbenchError(
                f"a Ray worker cannot do runs: {_last_line(error)}"
            ) from None
        except WorkerCrashedError:
            return Died("died")
        except RayError as error:
            return Died(f"was lost ({type(error).__name__})")
        return report

    def stop(self, job: Any) -> None:
        import ray

        ray.cancel(job)  # in its process: SIGINT, as `do_batch` understands it


@contextmanager
def _connected(engine: RayEngine, runs: int) -> Iterator[None]:
    """A connection to the cluster that `engine` names, or to a new one."""
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
        wanted = min(engine.workers or cores(), runs) * engine.cpus
        available = max(cores(), engine.workers or 0)
        settings |= {"num_cpus": min(wanted, available), "include_dashboard": False}
    before = signal.getsignal(signal.SIGTERM)  # Ray sets its own
    try:
        # What it starts here must outlive the terminal: the runs are saved first.
        with held(*not_ignored("SIGHUP")):
            ray.init(**settings, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"engine.address={engine.address}" if engine.address else "engine=ray"
        raise RequestError(f"{where} is not reached: {_last_line(error)}") from None
    finally:
        signal.signal(signal.SIGTERM, before)
    try:
        yield
    finally:
        with suppress(Exception):  # a cluster that is gone already
            ray.shutdown()


def require_listening(address: str) -> None:
    """Raise RequestError where nobody listens: Ray itself would try for minutes."""
    found = re.fullmatch(r"(?:ray://)?(?P<host>[^/]+):(?P<port>\d{1,5})", address)
    if found is None:
        return  # "auto", or another form that Ray knows
    try:
        socket.create_connection((found["host"], int(found["port"])), REACH).close()
    except (OSError, OverflowError) as error:
        raise RequestError(
            f"engine.address={address} is not reached: {error}; "
            "`ray status` on its machine says whether it is up"
        ) from None


def _require_answer(address: str) -> None:
    """Raise RequestError where no cluster of this Ray's version answers in time.

    Asked by another process: Ray's own attempt cannot be ended.
    """
    try:
        subprocess.run(
            [sys.executable, "-c", CONNECT, address],
            capture_output=True,
            text=True,
            timeout=ANSWER,
            check=True,
        )
    except subprocess.TimeoutExpired:
        told = f"what listens there gave no answer in {ANSWER:g} s"
    except subprocess.CalledProcessError as error:
        told = (error.stderr.strip().splitlines() or [f"exit {error.returncode}"])[-1]
    else:
        return
    raise RequestError(
        f"engine.address={address} is not reached: {told}; "
        f"`ray status --address {address}` says more"
    )


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
