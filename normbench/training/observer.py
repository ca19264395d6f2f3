"""The interface through which a run reports its progress."""

from collections.abc import Mapping
from typing import Any, Protocol


class Observer(Protocol):
    """Shows the progress of one run.

    A run calls `start`, then `log` for each row of its history, then `close`; it calls
    `note` and `warn` at any time.
    """

    def start(self, title: str, steps: int) -> None: ...
    def log(self, row: Mapping[str, Any]) -> None: ...
    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def close(self) -> None: ...


class Silent:
    """An observer that shows nothing."""

    def start(self, title: str, steps: int) -> None:
        pass

    def log(self, row: Mapping[str, Any]) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass
