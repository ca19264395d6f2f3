"""Logging of runs to Weights & Biases.

Logging never changes a metric and never ends a run: the first exception becomes one
warning, after which nothing more is logged. Each row has the optimiser step as its
step, so a resumed run, which has the same id, adds no row twice.
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
"""The table in the summary: one row, which W&B joins over the runs of a project."""

_BLOCK = 2**16
"""Bytes: more than W&B's service writes at a time."""

Tell = Callable[[str], None]
Mode = Literal["offline", "online", "disabled"]


class Tracker:
    """Receives what an experiment logs; this one ignores it."""

    def log(self, row: Mapping[str, Any]) -> None:
        """One row of the history; `row["step"]` is the optimiser step."""

    def pictures(self, step: int, files: Mapping[str, Path]) -> None:
        """PNG files, by name."""

    def finish(self, metrics: Mapping[str, float | None], ok: bool) -> None:
        """The end of the run, with the record's metrics."""


class NoTracker(Tracker):
    """The tracker of `tracker=none`."""


def open_tracker(
    config: RunConfig,
    run_id: str,
    results: Path,
    *,
    resumed: bool,
    note: Tell,
    warn: Tell,
) -> Tracker:
    """The tracker that `config` asks for; `note` gets one line, `warn` any failure.

    The rows of a `resumed` run follow those of its first part; any other run replaces
    what W&B has for its id.
    """
    if config.tracker.name == "none" or config.tracker.mode == "disabled":
        return NoTracker()
    return WandbTracker(config, run_id, results, resumed, note, warn)


def account() -> tuple[str, bool]:
    """The address of W&B's server, and whether this machine has a key for it.

    Asks no server, so the key may be invalid.
    """
    wandb_variables.clean(offline=False)
    import wandb

    # This mode starts no process.
    settings = wandb.setup(wandb.Settings(mode="disabled")).settings
    wandb.teardown()
    key = settings.api_key or settings.identity_token_file
    return settings.base_url, bool(key) or _has_login(settings.base_url)


def _has_login(server: str) -> bool:
    """Whether the netrc file, where `wandb login` writes keys, has one for `server`."""
    try:
        path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
        return netrc(path).authenticators(urlsplit(server).netloc) is not None
    except (OSError, RuntimeError, NetrcParseError):  # RuntimeError: no home folder
        return False


def answers(url: str, seconds: float) -> bool:
    """Whether a server answers within `seconds`, be it with an error."""
    answered = Event()

    def ask() -> None:
        with suppress(OSError, ValueError):
            try:
                urlopen(url, timeout=seconds).close()
            except HTTPError as refusal:
                refusal.close()
            answered.set()

    asking = Thread(target=ask, daemon=True)  # a name lookup may exceed the timeout
    asking.start()
    asking.join(seconds)
    return answered.is_set()


class WandbTracker(Tracker):
    """Logs one run to Weights & Biases, with files in `wandb_folder(results)`."""

    def __init__(
        self,
        config: RunConfig,
        run_id: str,
        results: Path,
        resumed: bool,
        note: Tell,
        warn: Tell,
    ) -> None:
        self._warn = warn
        self._config, self._run_id, self._resumed = config, run_id, resumed
        self._results = results
        self._run: Any = None
        try:
            with _debug_log_may_fail():
                self._run = self._open(config.tracker.mode)
        except Exception as error:
            self._give_up(error)
        else:
            note(_how_to_view(self._run))

    def _open(self, mode: Mode) -> Any:
        try:
            return self._init(mode)
        except Exception as error:
            if mode == "offline":
                raise
            self._warn(f"W&B is not reachable ({_first_line(error)}); logging offline")
            import wandb

            wandb.teardown()  # the failed run still holds its id in wandb's service
            return self._init("offline")

    def _init(self, mode: Mode) -> Any:
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
        settings = {"console": "off", "init_timeout": 20, "x_disable_stats": True}
        settings |= {"x_save_requirements": False}
        settings |= {"disable_git": True, "disable_code": True}
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
                run.summary.update({**metrics, **self._from_the_record(metrics)})
                run.summary.update({RESULTS: table})
            run.finish(exit_code=0 if ok else 1)
            _try_to_write(Path(run.dir))

        self._send(send)
        self._run = None

    def _from_the_record(
        self, metrics: Mapping[str, float | None]
    ) -> dict[str, float | None]:
        """The quantities of the run's probes, and the minima of validation metrics.

        W&B's own minimum would ignore the part of a run before it was resumed.
        """
        folder = store.run_folder(self._results, self._run_id)
        record = store.read(folder)
        if record is None or record.metrics != dict(metrics):
            return {}  # it could not be written
        lowest: dict[str, float] = {}
        for row in store.read_history(folder):
            for key, value in row.items():
                if key.startswith("val/") and value is not None:
                    name = f"min/{key}"
                    lowest[name] = min(value, lowest.get(name, value))
        return {**record.probes, **lowest}

    def _send(self, send: Callable[[Any], None]) -> None:
        """Call `send` with the W&B run; an exception becomes the one warning."""
        if self._run is None:
            return
        try:
            with _debug_log_may_fail():
                send(self._run)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._run = None
        self._warn(
            f"W&B failed ({_first_line(error)}); the run goes on, its record is kept"
        )


@contextmanager
def _debug_log_may_fail() -> Iterator[None]:
    """No traceback on stderr for each line that W&B cannot write to its own log."""
    before = logging.raiseExceptions
    logging.raiseExceptions = False
    try:
        yield
    finally:
        logging.raiseExceptions = before


def _try_to_write(folder: Path) -> None:
    """Raises OSError if W&B's folder is full, where its service drops rows silently."""
    probe = folder / ".probe"
    try:
        probe.write_bytes(bytes(_BLOCK))
    finally:
        probe.unlink(missing_ok=True)


def _how_to_view(run: Any) -> str:
    if not run.offline:
        return f"W&B: {run.url}"
    folder = Path(run.dir).parent
    with suppress(ValueError):
        folder = folder.relative_to(Path.cwd())
    return f"W&B, offline: `wandb leet {folder}` shows it, `normbench sync` uploads it"


def _row(config: RunConfig, run_id: str) -> dict[str, Any]:
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
    if isinstance(error, ValidationError):  # of a setting, mostly from a variable
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:120]
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
