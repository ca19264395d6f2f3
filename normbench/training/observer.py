"""Who follows one run while it trains."""

from collections.abc import Mapping
from typing import Any, Protocol


class Observer(Protocol):
    """Follows one run. Its methods are called in this order, but `note` and `warn`."""

    def start(self, title: str, steps: int) -> None: ...
    def log(self, row: Mapping[str, Any]) -> None: ...
    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def close(self) -> None: ...


class Silent:
    """Shows nothing."""

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
