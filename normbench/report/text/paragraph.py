"""Wrapped lines for a terminal, with a hanging indent."""

import textwrap


def paragraph(label: str, text: str, width: int, *, indent: int = 0) -> str:
    """`label`, then `text`, whose further lines are indented by the label."""
    first = " " * indent + label
    return textwrap.fill(
        text,
        width,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )
