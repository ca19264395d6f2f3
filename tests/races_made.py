"""Made-up runs of a race, and the clock that they move."""

from collections.abc import Mapping

import numpy as np
from checks_made import Runner

from normbench.config.schema import Engine, RunConfig
from normbench.sweeps.engines.base import Work

RUN_SECONDS = 3.5
"""How long a run takes, on the clock and by its record."""
ERRORS = {"batch": 0.1, "group": 0.115, "instance": 0.135, "none": 0.7}


def a_noise(config: RunConfig) -> float:
    """Return noise that depends on norm and seed, with a standard deviation of .01."""
    key = [config.seed, sum(map(ord, config.norm.name))]
    return float(np.random.default_rng(key).normal(0, 0.01))


class Clock:
    """A clock that only runs move."""

    def __init__(self) -> None:
        self.now = 50.0

    def monotonic(self) -> float:
        return self.now


class TimedRunner(Runner):
    """Makes up records until the deadline, and moves the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock, self.metrics = clock, self.errors
        self.means: Mapping[str, float] = ERRORS
        self.deadlines: list[float | None] = []

    def errors(self, config: RunConfig) -> dict[str, float | None]:
        error = self.means[config.norm.name] + 0.02 * abs(config.lr - 0.2)
        error += a_noise(config)
        return {f"{split}/error": error for split in ("train", "val", "test")}

    def __call__(self, work: Work, engine: Engine) -> None:
        self.deadlines.append(work.deadline)
        in_time = {}
        for key, config in work.runs.items():
            self.clock.now += RUN_SECONDS
            if work.deadline is not None and self.clock.now > work.deadline:
                break
            in_time[key] = config
        super().__call__(
            Work(in_time, work.results, work.forecast, work.observer), engine
        )

    @property
    def test_seeds(self) -> dict[str, int]:
        """The number of test seeds of each norm."""
        norms = [c.norm.name for runs in self.rounds for c in runs if c.seed < 1000]
        return {norm: norms.count(norm) for norm in dict.fromkeys(norms)}
