"""The command line: parse, call, print."""

from typing import Any

from normbench import signals, streams


def main() -> None:
    """The console script. Ctrl-C is heeded before anything that takes long."""
    signals.heed_ctrl_c_at_once()
    streams.install()
    from normbench.cli.commands import app

    try:
        app()
    except SystemExit as end:
        lost = streams.say_lost_output()
        raise SystemExit(end.code or int(lost)) from None


def __getattr__(name: str) -> Any:
    """`app`, imported only where it is asked for: that takes a moment."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from normbench.cli.commands import app

    return app
