"""Wrapped lines for a terminal, with a hanging indent."""

import textwrap


def paragraph(label: str, text: str, width: int, *, indent: int = 0) -> str:
    """Wrap `label` and `text`; later lines begin below the first word of `text`."""
    first = " " * indent + label
    return textwrap.fill(
        text,
        width,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )
