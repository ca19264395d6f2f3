"""Overrides in Hydra's grammar: text -> parsed overrides, each for one run.

Every text is parsed once, here. An override of one value of a choice or a range
carries the parsed value, so that quotes and types are never lost.
"""

import io
import itertools
import math
import random
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
    Sweep,
    ValueType,
)
from hydra.errors import HydraException

from normbench.config.choices import choices, groups
from normbench.errors import RequestError, did_you_mean, shortened

MOST_RUNS = 1_000_000
"""More runs than that are a mistake in the request."""


def parse(text: str, config_dir: Path | None = None) -> Override:
    """One override, of one value or of several, by Hydra's parser.

    Raises RequestError if `text` is not an override or its choice does not exist.
    """
    try:
        override = OverridesParser.create().parse_override(text)
    except Exception as error:  # the parser raises many kinds on malformed text
        raise RequestError(_why_not(text, error)) from None
    key = str(override.key_or_group)
    if not key:
        raise RequestError(_why_not(text, HydraException()))
    if re.match(r"hydra(?:[./]|$)", key):
        raise RequestError(
            f"{shortened(text)}: Hydra's own settings have no effect here"
        )
    if key == "optimizer.lr":
        raise RequestError(_not_the_rate(text))
    if not override.is_sweep_override():
        _refuse_nested_sweeps(override.value(), shortened(text))
        _check_choice(override, config_dir)
    return override


def _not_the_rate(text: str) -> str:
    return f"{shortened(text)}: the key of the learning rate is lr"


def words(text: str, option: str = "--arm") -> list[str]:
    """The overrides in `text`, separated by blanks. Raises RequestError.

    A word that begins with a quote is read as a shell reads it. Quotes inside a word
    are part of Hydra's grammar and stay: `norm=group data.path="my flowers, v=2"` has
    two words.
    """
    found = []
    rest = text.lstrip()
    while rest:
        if rest[0] in "\"'":
            stream = io.StringIO(rest)
            lexer = shlex.shlex(stream, posix=True)
            lexer.whitespace_split, lexer.commenters = True, ""
            try:
                word, length = str(lexer.get_token()), stream.tell()
            except ValueError as error:
                raise RequestError(f"{option} {text!r}: {error}") from None
        else:
            match = _WORD.match(rest)
            if match is None:
                raise RequestError(f"{option} {text!r}: a quotation has no end")
            word, length = match.group(), match.end()
        found.append(word)
        rest = rest[length:].lstrip()
    return found


_WORD = re.compile(
    r"""(?:[^\s"'\\]|\\.|\\$|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')+(?=\s|$)""", re.DOTALL
)


def grid(
    overrides: Sequence[str], config_dir: Path | None
) -> Iterator[tuple[Override, ...]]:
    """Every combination of values; the values of the last override vary fastest.

    Of several overrides of one key, the last one counts. Raises RequestError.
    """
    axes: dict[str, list[Override]] = {}
    for text in overrides:
        override = parse(text, config_dir)
        axes[override.get_key_element()] = _single_values(override, config_dir)
    size = math.prod(len(values) for values in axes.values())
    if size > MOST_RUNS:
        raise RequestError(f"more than {MOST_RUNS:,} runs; name fewer")
    return itertools.product(*axes.values())


def _single_values(override: Override, config_dir: Path | None) -> list[Override]:
    """The overrides of one value each that `override` stands for.

    If they are more than MOST_RUNS, one too many. Raises RequestError.
    """
    if not override.is_sweep_override():
        return [override]
    key, text = override.get_key_element(), shortened(override.input_line)
    elements = _elements(override.value(), str(override.key_or_group), text, config_dir)
    singles = [
        replace(
            override,
            value_type=ValueType.ELEMENT,
            _value=value,
            input_line=f"{key}={value_text(value)}",
        )
        for value in itertools.islice(elements, MOST_RUNS + 1)
    ]
    if not singles:
        raise RequestError(f"{text} has no values")
    if override.key_or_group in groups():
        for single in singles:
            _check_choice(single, config_dir)
    return singles


def _elements(
    value: Any, key: str, text: str, config_dir: Path | None
) -> Iterator[Any]:
    """The values in a sweep and in the sweeps inside it; quoted values stay quoted."""
    if isinstance(value, ChoiceSweep):
        items = list(value.list)
        if value.shuffle:
            random.shuffle(items)
        for item in items:
            yield from _elements(item, key, text, config_dir)
    elif isinstance(value, RangeSweep):
        ends = (value.start, value.stop, value.step)
        if not all(isinstance(end, int) or math.isfinite(end or 0) for end in ends):
            raise RequestError(f"{text}: the numbers of a range must be finite")
        if not value.step:
            raise RequestError(f"{text}: the step of a range cannot be 0")
        numbers = list(itertools.islice(value.range(), MOST_RUNS + 1))
        if value.shuffle:
            random.shuffle(numbers)
        yield from numbers
    elif isinstance(value, Glob):
        if key not in groups():
            raise RequestError(f"{text}: glob chooses among yaml files; {key} has none")
        known = list(choices(key, config_dir))
        names = value.filter(known)
        if not names:
            raise RequestError(f"{text} matches none of {', '.join(known)}")
        yield from names
    elif isinstance(value, IntervalSweep):
        raise RequestError(
            f"{text} has infinitely many values; write range(START,STOP,STEP) or a list"
        )
    else:
        _refuse_nested_sweeps(value, text)
        yield value


def _refuse_nested_sweeps(value: Any, text: str) -> None:
    parts = [*value, *value.values()] if isinstance(value, dict) else value
    if isinstance(value, list | dict):
        for part in parts:
            _refuse_nested_sweeps(part, text)
    elif isinstance(value, Sweep | Glob):
        raise RequestError(
            f"{text}: a list or a mapping cannot hold a choice, a range or a glob; "
            "write the values out"
        )


def _check_choice(override: Override, config_dir: Path | None) -> None:
    key, value = str(override.key_or_group), override.value()
    if key == "optimizer" and isinstance(value, dict) and "lr" in value:
        raise RequestError(_not_the_rate(str(override.input_line)))
    if key not in groups() or isinstance(value, dict):
        return
    if override.is_delete():
        raise RequestError(f"~{key}: no run is without {key}; write {key}=CHOICE")
    known = choices(key, config_dir)
    if str(value) not in known:
        shown = "null" if value is None else str(value)[:100]
        raise RequestError(f"{key}={shown} is unknown; {did_you_mean(shown, known)}")


def value_text(value: Any) -> str:
    """A text that Hydra parses to `value`."""
    if isinstance(value, QuotedString):
        return str(value.with_quotes())
    if isinstance(value, list):
        return f"[{','.join(map(value_text, value))}]"
    if isinstance(value, dict):
        items = (f"{key}:{value_text(item)}" for key, item in value.items())
        return f"{{{','.join(items)}}}"
    if isinstance(value, str) and not _PLAIN.fullmatch(value):
        return str(QuotedString(value, Quote.double).with_quotes())
    return "null" if value is None else str(value)


_PLAIN = re.compile(
    r"(?!(?:true|false|null|inf|nan)$)[A-Za-z_][\w./-]*", re.ASCII | re.IGNORECASE
)


def _why_not(text: str, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"{shortened(text)} is nested too deeply"
    reason = re.sub(r" is incompatible with .*", " cannot stand here", str(error))
    reason = " ".join(reason.split())
    if "integer string conversion" in reason:
        return f"{shortened(text)}: an integer has too many digits"
    if not isinstance(error, HydraException) or "while evaluating" in reason:
        return f"{shortened(text)} is not an override: {reason[:200]}"
    key, equals, value = text.partition("=")
    quoted = shortened(value)[1:-1] if len(value) > 200 else value
    return (
        f"{shortened(text)} is not an override; write KEY=VALUE, such as norm=group"
        # Such as ~/flowers, or a path with a comma in it.
        + (f", or '{key}=\"{quoted}\"' in a shell" if equals else "")
    )
