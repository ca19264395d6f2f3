"""The command `skill`, which prints how an agent answers questions with normbench."""

import typer

from normbench.cli.options import exit_codes


def skill() -> None:
    """Print how a program answers questions about norms.

    The text is a skill for AI agents, in Markdown with a YAML header: which command
    answers which question, how to report an answer, and what the verdicts found. Save
    it where your agent looks for skills, as normbench/SKILL.md.
    """
    with exit_codes():
        from importlib.resources import files

        file = files("normbench") / "skills" / "normbench" / "SKILL.md"
        typer.echo(file.read_text(encoding="utf-8"), nl=False)
