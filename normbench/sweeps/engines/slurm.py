"""The engine `slurm`: a job array, submitted by submitit, each job a share of the runs.

The command that submits it stays and follows the records. If a job is preempted or out
of time, its runs are submitted again and resume. If the command itself ends, its jobs
go on; the same command then waits for them, and does the rest.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import repeat
from typing import Any

from normbench.config.schema import SlurmEngine
from normbench.errors import NormbenchError, RequestError
from normbench.sweeps.engines.base import Batch, Event, Work, blocked
from normbench.sweeps.engines.batches import Cluster
from normbench.sweeps.engines.worker import do_batch
from normbench.system.signals import terminal_signals


@contextmanager
def backend(work: Work, engine: SlurmEngine) -> Iterator["SlurmCluster"]:
    """Slurm's job arrays; RequestError if submitit or Slurm is missing.

    The output of the jobs goes to `<results>/slurm`.
    """
    yield SlurmCluster(work, engine)


class SlurmCluster(Cluster):
    """Slurm, by submitit's executor."""

    def __init__(self, work: Work, engine: SlurmEngine) -> None:
        try:
            import submitit
        except ImportError:
            raise RequestError(
                "engine=slurm needs submitit, which is not installed; "
                "pip install 'normbench[slurm]'"
            ) from None
        slots = min(engine.workers, len(work.runs))
        super().__init__(work, slots, -(-len(work.runs) // slots))
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
                f"({error.filename}); name a folder that can"
            ) from None
        except RuntimeError as error:
            raise RequestError(
                f"engine.cluster={engine.cluster}: {error}; "
                "engine.cluster=local tries it on this machine"
            ) from None
        except (NameError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise RequestError(f"engine.options={engine.options}: {reason}") from None

    def start(self, batches: Sequence[Batch]) -> list[Any]:
        try:
            # What a terminal sends reaches all of its processes, the stand-in's too.
            with blocked(*terminal_signals()):
                return list(
                    self._executor.map_array(do_batch, batches, repeat(self.results))
                )
        except Exception as error:  # sbatch's refusals have no class of their own
            raise NormbenchError(f"submitit cannot submit: {error}") from error

    def outcome(self, task: Any) -> list[Event] | None:
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
        if self._executor.cluster == "local":  # as scancel does; its cancel is a SIGINT
            with suppress(ProcessLookupError):
                os.kill(int(task.job_id), signal.SIGTERM)
        else:
            task.cancel(check=False)
