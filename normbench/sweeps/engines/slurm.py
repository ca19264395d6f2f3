"""The engine `slurm`: a job array, submitted by submitit, each job a share of the runs.

The command that submits it stays and follows the records. What a job leaves, whose time
is up or that is preempted, is submitted again and resumes. Where the command itself is
gone, the jobs go on; the same command then waits for them, and does what they leave.
"""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import repeat
from typing import Any

from normbench.config.schema import SlurmEngine
from normbench.errors import NormbenchError, RequestError
from normbench.sweeps.engines import Work, held
from normbench.sweeps.engines.batches import Batch, Died, Report, do_batch, follow
from normbench.system.signals import of_the_terminal


def run_all(work: Work, engine: SlurmEngine) -> None:
    """As `engines.run_all`; RequestError where submitit or Slurm is not there.

    What the jobs print is in `<results>/slurm`.
    """
    follow(_Slurm(engine, work), work)


class _Slurm:
    """The cluster, by submitit's executor."""

    def __init__(self, engine: SlurmEngine, work: Work) -> None:
        try:
            import submitit
        except ImportError:
            raise RequestError(
                "engine=slurm needs submitit, which is not installed; "
                "pip install 'normbench[slurm]'"
            ) from None
        results = work.results.resolved()
        self.slots = min(engine.workers, len(work.runs))
        self.batch_size = -(-len(work.runs) // self.slots)
        self._results = results
        asked: dict[str, Any] = {
            "name": "normbench",
            "timeout_min": engine.minutes,
            "cpus_per_task": engine.cpus,
            "gpus_per_node": engine.gpus,
            "slurm_partition": engine.partition,
            **engine.options,
        }
        try:
            self._executor = submitit.AutoExecutor(
                results.folder / "slurm", cluster=engine.cluster
            )
            self._executor.update_parameters(
                **{key: value for key, value in asked.items() if value is not None}
            )
        except OSError as error:
            raise RequestError(
                f"--results {results.folder} cannot be written: {error.strerror} "
                f"({error.filename}); name a folder that can"
            ) from None
        except RuntimeError as error:
            raise RequestError(
                f"engine.cluster={engine.cluster}: {error}; "
                "engine.cluster=local tries it on this machine"
            ) from None
        except (NameError, TypeError, ValueError) as error:
            told = " ".join(str(error).split())
            raise RequestError(f"engine.options={engine.options}: {told}") from None

    def submit(self, batches: Sequence[Batch]) -> list[Any]:
        try:
            # What a terminal sends reaches all of its processes, the stand-in's too.
            with held(*of_the_terminal()):
                return list(
                    self._executor.map_array(do_batch, batches, repeat(self._results))
                )
        except Exception as error:  # sbatch's refusals have no class of their own
            raise NormbenchError(f"submitit cannot submit: {error}") from error

    def wait(self, jobs: Sequence[Any], seconds: float) -> None:
        time.sleep(seconds)

    def outcome(self, job: Any) -> Report | Died | None:
        from submitit.core.utils import FailedJobError, UncompletedJobError

        if not job.done():
            return None
        try:
            report: Report = job.result()
        except FailedJobError as error:
            told = str(error).strip().splitlines()[-1]
            raise NormbenchError(
                f"job {job.job_id} cannot do runs: {told}; see {job.paths.stderr}"
            ) from None
        except UncompletedJobError:
            return Died(f"(job {job.job_id}) left no result; see {job.paths.stderr}")
        return report

    def stop(self, job: Any) -> None:
        if self._executor.cluster == "local":  # as scancel does; its cancel is a SIGINT
            with suppress(ProcessLookupError):
                os.kill(int(job.job_id), signal.SIGTERM)
        else:
            job.cancel(check=False)
