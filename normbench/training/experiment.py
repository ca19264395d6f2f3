"""Do one run: train and evaluate the network of a config, and write the record."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from normbench.config.schema import Environment, RunConfig, RunRecord
from normbench.data.base import REGISTRY as DATA
from normbench.errors import Stopped
from normbench.records.source import comes_from_this_code
from normbench.records.store import Results
from normbench.records.tracking import open_tracker
from normbench.tasks.base import Task
from normbench.training import checkpoint
from normbench.training.environment import environment
from normbench.training.network import (
    check,
    choose_device,
    make_task,
    require_compiler,
    turn_off_tf32,
)
from normbench.training.observer import Observer, Silent
from normbench.training.progress import Progress, failure
from normbench.training.replica import Share
from normbench.training.trainer import Trainer


def run_one(
    config: RunConfig,
    results: Results,
    *,
    observer: Observer | None = None,
    stop: Callable[[], bool] | None = None,
) -> RunRecord:
    """Do the run of `config` if it is not finished already; return its record.

    An interrupted run resumes from its checkpoint. The user's modules
    (`results.modules`) must be imported already. `distributed.run_together` does a run
    in several processes.

    `stop` is called after every step. If `stop` returns True, the state is saved and
    Stopped is raised. If the run is not possible, RequestError is raised before any
    file is written. Its subclass Incompatible means that the norm cannot work in the
    network. Its subclass Busy means that a process is doing the run already. An error
    of the training or of the evaluation is not raised; the record then has the status
    "diverged", "skipped" or "failed".
    """
    observer = observer or Silent()
    if record := finished(config, results, observer):
        return record
    progress = Progress(config, observer)
    device, task = prepare(config, choose_device(config.device))
    return train_and_record(task, device, results, progress, stop)


def finished(
    config: RunConfig, results: Results, observer: Observer
) -> RunRecord | None:
    """Return the record of a finished run and inform the user, or return None."""
    record = results.finished(config)
    if record:
        observer.note("this run is finished already; its record:")
        if not comes_from_this_code(record, results.modules):
            observer.note(
                "it comes from other code than this; remove its folder, or choose "
                "other --results, to run it again"
            )
    return record


def prepare(config: RunConfig, device: torch.device) -> tuple[torch.device, Task]:
    """Return the device and task; raise RequestError if the run is not possible."""
    torch.set_num_threads(config.threads)
    turn_off_tf32()
    if device.index is not None:  # some torch functions use the current device
        torch.cuda.set_device(device)
    if config.compile:
        require_compiler(device)
    task = make_task(config, device)
    check(config, task)
    return device, task


def train_and_record(
    task: Task,
    device: torch.device,
    results: Results,
    progress: Progress,
    stop: Callable[[], bool] | None,
    share: Share | None = None,
) -> RunRecord:
    """Do a prepared run and write its record. Raises the same errors as `run_one`."""
    config, observer, share = progress.config, progress.observer, share or Share()
    ran_on = environment(device, results.modules, config, share.size)
    with results.writer(config) as writer:
        if record := results.finished(config):
            return record  # another process has finished the run meanwhile
        progress.identity = _identity(progress, ran_on)
        state = checkpoint.latest(writer.folder, progress.identity, observer.warn)
        writer.begin(config, resume_at=state.history if state else None)
        if state:
            progress.resume(state)
        progress.writer = writer
        progress.tracker = open_tracker(
            config,
            progress.run_id,
            results.folder,
            resumed=state is not None,
            note=observer.note,
            warn=observer.warn,
        )
        share.announce(state)
        try:
            trainer = Trainer(task, device, progress, stop or never, share)
            trainer.train(state)
            if progress.status == "ok":
                trainer.evaluate(writer)
        except Stopped:
            progress.tracker.finish({}, ok=False)
            raise
        except Exception as error:
            progress.status, progress.error = share.explain(error)
        finally:
            observer.close()
        record = progress.record(ran_on)
        try:
            writer.finish(record)
        finally:
            progress.tracker.finish(record.metrics, ok=record.status == "ok")
    return record


def record_failure(config: RunConfig, results: Results, reason: str) -> RunRecord:
    """Record that the process of a run died or was stopped; return the record.

    Another process calls this function. The history and the checkpoint remain. If the
    run has a record already, that record is returned. Raises Busy if a process is doing
    the run, and NormbenchError if the record cannot be written.
    """
    failed = failure(config, reason, results.modules)
    with results.writer(config) as writer:
        if record := results.finished(config):
            return record
        writer.finish(failed)
    return failed


def never() -> bool:
    return False


def _identity(progress: Progress, ran_on: Environment) -> Mapping[str, Any]:
    """Return the facts that must not change when a run resumes from a checkpoint."""
    config = progress.config
    packages = DATA.get(config.data.name).packages
    return {
        "run": progress.run_id,
        **{package: ran_on.packages.get(package) for package in packages},
        "source": ran_on.source_hash,
        "modules": ran_on.modules,
        "torch": str(torch.__version__),
        "device": ran_on.device,
        "threads": ran_on.threads,
        "evaluations": config.evaluations,
        "evaluation_batch": config.evaluation.batch_size,
        "log_every": config.log_every,
    }
