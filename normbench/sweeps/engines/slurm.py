"""The engine `slurm`: a job array of Slurm; each job trains a batch of runs.

The command submits the array by submitit and waits for the records. If a job is
preempted or exceeds its time limit, its runs are submitted again and resume. If the
command itself ends, its jobs continue; the same command later waits for their runs and
submits the missing ones.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import repeat
from math import ceil
from typing import Any

from normbench.config.schema import SlurmEngine
from normbench.errors import NormbenchError, RequestError
from normbench.sweeps.engines.base import Batch, Event, Work, blocked
from normbench.sweeps.engines.batches import Cluster
from normbench.sweeps.engines.worker import do_batch
from normbench.system.signals import terminal_signals


@contextmanager
def backend(work: Work, engine: SlurmEngine) -> Iterator["SlurmCluster"]:
    """Yield a backend that submits job arrays to Slurm.

    The jobs write their output to `<results>/slurm`. Raises RequestError if submitit or
    Slurm is missing.
    """
    yield SlurmCluster(work, engine)


class SlurmCluster(Cluster):
    """Jobs that submitit submits to Slurm, or starts on this machine for tests."""

    def __init__(self, work: Work, engine: SlurmEngine) -> None:
        try:
            import submitit
        except ImportError:
            raise RequestError(
                "engine=slurm needs submitit, which is not installed; "
                "pip install 'normbench[slurm]'"
            ) from None
        slots = min(engine.workers, len(work.runs))
        runs_per_job = ceil(len(work.runs) / slots)
        super().__init__(work, slots, runs_per_job)
        folder = self.results.folder
        parameters: dict[str, Any] = {
            "name": "normbench",
            "timeout_min": engine.minutes,
            "cpus_per_task": engine.cpus,
            "gpus_per_node": engine.gpus,
            "slurm_partition": engine.partition,
            **engine.options,
        }
        try:
            self._executor = submitit.AutoExecutor(
                folder / "slurm", cluster=engine.cluster
            )
            self._executor.update_parameters(
                **{key: value for key, value in parameters.items() if value is not None}
            )
        except OSError as error:
            raise RequestError(
                f"--results {folder} cannot be written: {error.strerror} "
                f"({error.filename}); choose another folder"
            ) from None
        except RuntimeError as error:
            raise RequestError(
                f"engine.cluster={engine.cluster}: {error}; "
                "engine.cluster=local tests the engine on this machine"
            ) from None
        except (NameError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise RequestError(f"engine.options={engine.options}: {reason}") from None

    def start(self, batches: Sequence[Batch]) -> list[Any]:
        try:
            # With engine.cluster=local, jobs are child processes. They must not
            # receive the signals of the terminal.
            with blocked(*terminal_signals()):
                return list(
                    self._executor.map_array(do_batch, batches, repeat(self.results))
                )
        except Exception as error:  # submitit has no class for errors of sbatch
            raise NormbenchError(f"submitit cannot submit: {error}") from error

    def task_events(self, task: Any) -> list[Event] | None:
        from submitit.core.utils import FailedJobError, UncompletedJobError

        if not task.done():
            return None
        try:
            events: list[Event] = task.result()
        except FailedJobError as error:
            reason = str(error).strip().splitlines()[-1]
            raise NormbenchError(
                f"job {task.job_id} cannot do runs: {reason}; see {task.paths.stderr}"
            ) from None
        except UncompletedJobError:
            return [
                Event(
                    "died",
                    text=f"(job {task.job_id}) left no result; see {task.paths.stderr}",
                )
            ]
        return events

    def cancel(self, task: Any) -> None:
        if self._executor.cluster == "local":
            # submitit would send SIGINT; Slurm's scancel sends SIGTERM.
            with suppress(ProcessLookupError):
                os.kill(int(task.job_id), signal.SIGTERM)
        else:
            task.cancel(check=False)
