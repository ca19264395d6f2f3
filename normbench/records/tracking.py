"""Logs runs to Weights & Biases.

Logging never changes a metric and never ends a run: the first exception becomes a
warning, and then nothing more is logged. A row's step in W&B is the optimiser step. So
a resumed run, which has the same id, does not add a row twice.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from netrc import NetrcParseError, netrc
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from pydantic import ValidationError

from normbench.config import wandb_variables
from normbench.config.schema import RunConfig
from normbench.records import store

RESULTS = "results"
"""Key in a run's W&B summary; its value is a table with one row for the run.

W&B joins the tables of all runs of a project.
"""

_PROBE_BYTES = 2**16
"""Size of the file that tests whether a disk is full; W&B writes smaller blocks."""

ShowText = Callable[[str], None]
Mode = Literal["offline", "online", "disabled"]


class Tracker:
    """Base class of trackers, which receive what a run logs."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Log a row of the history; `row["step"]` is the optimiser step."""

    def pictures(self, step: int, files: Mapping[str, Path]) -> None:
        """Log PNG files, given by name."""

    def finish(self, metrics: Mapping[str, float | None], ok: bool) -> None:
        """Log the metrics of the record, and end the run."""


class NoTracker(Tracker):
    """The tracker of `tracker=none`: it ignores everything."""


def open_tracker(
    config: RunConfig,
    run_id: str,
    results: Path,
    *,
    resumed: bool,
    note: ShowText,
    warn: ShowText,
) -> Tracker:
    """Return the tracker that `config` names.

    `note` receives one line about how to view the run, `warn` a warning about any
    failure. A `resumed` run appends its rows to the rows that W&B already has for the
    run id. Any other run replaces these rows.
    """
    if config.tracker.name == "none" or config.tracker.mode == "disabled":
        return NoTracker()
    return WandbTracker(config, run_id, results, resumed, note, warn)


def account() -> tuple[str, bool]:
    """Return the address of W&B's server, and whether this machine has a key for it.

    The server is not contacted, so the key may be invalid.
    """
    wandb_variables.clean(offline=False)
    import wandb

    # With this mode, wandb starts no service process.
    settings = wandb.setup(wandb.Settings(mode="disabled")).settings
    wandb.teardown()
    key = settings.api_key or settings.identity_token_file
    return settings.base_url, bool(key) or _has_login(settings.base_url)


def _has_login(server: str) -> bool:
    """Return whether the netrc file of `wandb login` has a key for `server`."""
    try:
        path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
        return netrc(path).authenticators(urlsplit(server).netloc) is not None
    except (OSError, RuntimeError, NetrcParseError):  # RuntimeError: no home folder
        return False


def answers(url: str, seconds: float) -> bool:
    """Return whether a server answers within `seconds`; an HTTP error is an answer."""
    answered = Event()

    def send_request() -> None:
        with suppress(OSError, ValueError):
            try:
                urlopen(url, timeout=seconds).close()
            except HTTPError as error:
                error.close()
            answered.set()

    # `urlopen` can take longer, as its timeout does not cover the DNS lookup.
    thread = Thread(target=send_request, daemon=True)
    thread.start()
    thread.join(seconds)
    return answered.is_set()


class WandbTracker(Tracker):
    """Logs one run to Weights & Biases, with files in `wandb_folder(results)`."""

    def __init__(
        self,
        config: RunConfig,
        run_id: str,
        results: Path,
        resumed: bool,
        note: ShowText,
        warn: ShowText,
    ) -> None:
        self._warn = warn
        self._config, self._run_id, self._resumed = config, run_id, resumed
        self._results = results
        self._run: Any = None
        try:
            with _no_logging_tracebacks():
                self._run = self._open(config.tracker.mode)
        except Exception as error:
            self._give_up(error)
        else:
            note(_how_to_view(self._run))

    def _open(self, mode: Mode) -> Any:
        """Start the W&B run, offline if that fails online."""
        try:
            return self._init(mode)
        except Exception as error:
            if mode == "offline":
                raise
            self._warn(f"W&B is not reachable ({_first_line(error)}); logging offline")
            import wandb

            wandb.teardown()  # otherwise wandb's service still has a run of this id
            return self._init("offline")

    def _init(self, mode: Mode) -> Any:
        """Start the W&B run with the labels and settings of normbench."""
        folder = wandb_variables.wandb_folder(self._results)
        wandb_variables.clean(offline=mode == "offline")
        wandb_variables.find_folders(folder)
        import wandb

        config = self._config
        tracker, task, norm = config.tracker, config.task.name, config.norm.name
        labels = wandb_variables.run_labels(
            f"{task}-{norm}-bs{config.batch_size}-s{config.seed}",
            job_type=task,
            tags=[f"norm:{norm}", f"bs:{config.batch_size}"],
        )
        settings = {
            "console": "off",
            "init_timeout": 20,
            "x_disable_stats": True,
            "x_save_requirements": False,
            "disable_git": True,
            "disable_code": True,
        }
        run = wandb.init(
            project=tracker.project,
            entity=tracker.entity,
            id=self._run_id,
            group=tracker.group or f"{task}-{config.data.name}",
            config=config.model_dump(mode="json"),
            dir=str(folder.parent),
            mode=mode,
            resume="allow" if self._resumed else None,
            settings=wandb.Settings(**wandb_variables.not_set(settings)),
            **labels,
        )
        run.define_metric("step")
        run.define_metric("*", step_metric="step", summary="none")
        return run

    def log(self, row: Mapping[str, Any]) -> None:
        finite = store.finite(row)
        present = {key: value for key, value in finite.items() if value is not None}
        self._send(lambda run: run.log(present, step=row["step"]))

    def pictures(self, step: int, files: Mapping[str, Path]) -> None:
        def send(run: Any) -> None:
            import wandb

            images = {name: wandb.Image(str(path)) for name, path in files.items()}
            run.log({"step": step, **images}, step=step)

        self._send(send)

    def finish(self, metrics: Mapping[str, float | None], ok: bool) -> None:
        def send(run: Any) -> None:
            import wandb

            if metrics:
                row = _row(self._config, self._run_id) | dict(metrics)
                table = wandb.Table(columns=list(row), data=[list(row.values())])
                run.summary.update({**metrics, **self._probes_and_minima(metrics)})
                run.summary.update({RESULTS: table})
            run.finish(exit_code=0 if ok else 1)
            _require_disk_space(Path(run.dir))

        self._send(send)
        self._run = None

    def _probes_and_minima(
        self, metrics: Mapping[str, float | None]
    ) -> dict[str, float | None]:
        """Return the results of the run's probes, and minima of validation metrics.

        The minima come from the history on disk: W&B's own minimum does not include the
        part of a run before it was resumed.
        """
        folder = store.run_folder(self._results, self._run_id)
        record = store.read(folder)
        if record is None or record.metrics != dict(metrics):
            return {}  # this run's record was not written; another may be on disk
        lowest: dict[str, float] = {}
        for row in store.read_history(folder):
            for key, value in row.items():
                if key.startswith("val/") and value is not None:
                    name = f"min/{key}"
                    lowest[name] = min(value, lowest.get(name, value))
        return {**record.probes, **lowest}

    def _send(self, send: Callable[[Any], None]) -> None:
        """Call `send` with the W&B run; after an exception, warn and log no more."""
        if self._run is None:
            return
        try:
            with _no_logging_tracebacks():
                send(self._run)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._run = None
        self._warn(
            f"W&B failed ({_first_line(error)}); the run goes on, and its record is "
            "complete"
        )


@contextmanager
def _no_logging_tracebacks() -> Iterator[None]:
    """Suppress tracebacks that `logging` prints if W&B cannot write its debug log."""
    previous = logging.raiseExceptions
    logging.raiseExceptions = False
    try:
        yield
    finally:
        logging.raiseExceptions = previous


def _require_disk_space(folder: Path) -> None:
    """Raise OSError if the disk of W&B's folder is full.

    W&B's service does not report rows that it could not write.
    """
    test_file = folder / ".probe"
    try:
        test_file.write_bytes(bytes(_PROBE_BYTES))
    finally:
        test_file.unlink(missing_ok=True)


def _how_to_view(run: Any) -> str:
    """Return a line on where to see the run."""
    if not run.offline:
        return f"W&B: {run.url}"
    folder = Path(run.dir).parent
    with suppress(ValueError):
        folder = folder.relative_to(Path.cwd())
    return f"W&B, offline: `wandb leet {folder}` shows it, `normbench sync` uploads it"


def _row(config: RunConfig, run_id: str) -> dict[str, Any]:
    """Return the columns of the table RESULTS that come from the config."""
    return {
        "run_id": run_id,
        "task": config.task.name,
        "data": config.data.name,
        "norm": config.norm.name,
        "reparam": config.reparam,
        "batch_size": config.batch_size,
        "norm_batch": config.norm_batch,
        "lr": config.lr,
        "seed": config.seed,
    }


def _first_line(error: Exception) -> str:
    """Return a short text of `error`."""
    if isinstance(error, ValidationError):  # an invalid setting or WANDB_* variable
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:120]
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
