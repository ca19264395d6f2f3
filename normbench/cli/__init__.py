"""The command line: it parses arguments, calls the other packages and prints."""

from normbench.system.interrupts import install_exit_handler


def main() -> None:
    """Run the command of this process's arguments, and exit."""
    install_exit_handler()
    from normbench.system import streams

    streams.install()
    from normbench.cli.commands import app

    try:
        app()
    except SystemExit as end:
        lost = streams.report_lost_output()
        raise SystemExit(end.code or int(lost)) from None


def __getattr__(name: str) -> object:
    """Import `app` on first use, because its import is slow."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from normbench.cli.commands import app

    return app
