"""Parses overrides in Hydra's grammar and expands sweeps into overrides of one value.

Every text is parsed only once. An override that comes from a sweep, such as seed=1 from
seed=1,2, keeps the parsed value with its type and its quotes.
"""

import io
import itertools
import math
import random
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
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
from normbench.config.norm_facts import other_names
from normbench.errors import RequestError, did_you_mean, shortened

MAX_RUNS = 1_000_000
"""Maximum number of runs of a sweep."""


def parse(text: str, config_dir: Path | None = None) -> Override:
    """Parse one override, which may have several values (seed=1,2).

    Raises RequestError if `text` is not an override or names a choice, such as
    norm=NAME, that does not exist.
    """
    try:
        override = _parsed(text)
    except Exception as error:  # the parser raises many kinds on malformed text
        raise RequestError(_syntax_message(text, error)) from None
    key = str(override.key_or_group)
    if not key:
        # An exception without a text gives the general message.
        raise RequestError(_syntax_message(text, HydraException()))
    if re.match(r"hydra(?:[./]|$)", key):
        raise RequestError(
            f"{shortened(text)}: normbench does not use Hydra's own settings"
        )
    if key == "optimizer.lr":
        raise RequestError(_rate_message(text))
    if not override.is_sweep_override():
        _refuse_nested_sweeps(override.value(), shortened(text))
        _check_choice(override, config_dir)
    return override


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Override:
    """Parse one override, which takes a millisecond; nothing changes the result."""
    return OverridesParser.create().parse_override(text)


def _rate_message(text: str) -> str:
    return f"{shortened(text)}: the key of the learning rate is lr"


def words(text: str, option: str = "--arm") -> list[str]:
    """Split `text` at blanks into overrides.

    A word that begins with a quote is parsed as in a shell. Quotes inside a word are
    part of Hydra's grammar and stay: `norm=group data.path="my flowers, v=2"` has two
    words. Raises RequestError, which names `option`, if a quotation has no end.
    """
    parts = []
    rest = text.lstrip()
    while rest:
        if rest[0] in "\"'":
            stream = io.StringIO(rest)
            lexer = shlex.shlex(stream, posix=True)
            # Only a blank ends a word, and "#" does not begin a comment.
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
        parts.append(word)
        rest = rest[length:].lstrip()
    return parts


# A word consists of quotations, escaped characters, and characters that are neither
# blanks nor quotes.
_WORD = re.compile(
    r"""(?:[^\s"'\\]|\\.|\\$|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')+(?=\s|$)""", re.DOTALL
)


def grid(
    overrides: Sequence[str], config_dir: Path | None
) -> Iterator[tuple[Override, ...]]:
    """Return every combination of values; the last override varies fastest.

    If several overrides have the same key, the last one counts. Raises RequestError for
    a wrong override or for more than MAX_RUNS combinations.
    """
    axes: dict[str, list[Override]] = {}
    for text in overrides:
        override = parse(text, config_dir)
        axes[override.get_key_element()] = single_values(override, config_dir)
    size = math.prod(len(values) for values in axes.values())
    if size > MAX_RUNS:
        raise RequestError(f"a sweep has at most {MAX_RUNS:,} runs; name fewer values")
    return itertools.product(*axes.values())


def single_values(override: Override, config_dir: Path | None) -> list[Override]:
    """Return one override for each value of `override`.

    The result has at most MAX_RUNS + 1 overrides. `grid` refuses such a number.
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
        for value in itertools.islice(elements, MAX_RUNS + 1)
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
    """Yield the values of a sweep and of the sweeps inside it, with their quotes."""
    if isinstance(value, ChoiceSweep):
        items = list(value.list)
        if value.shuffle:
            random.shuffle(items)
        for item in items:
            yield from _elements(item, key, text, config_dir)
    elif isinstance(value, RangeSweep):
        # An end that is not given is None.
        ends = (value.start, value.stop, value.step)
        if not all(isinstance(end, int) or math.isfinite(end or 0) for end in ends):
            raise RequestError(f"{text}: the numbers of a range must be finite")
        if not value.step:
            raise RequestError(f"{text}: the step of a range cannot be 0")
        numbers = list(itertools.islice(value.range(), MAX_RUNS + 1))
        if value.shuffle:
            random.shuffle(numbers)
        yield from numbers
    elif isinstance(value, Glob):
        if key not in groups():
            raise RequestError(f"{text}: glob matches yaml files, but {key} has none")
        known = list(choices(key, config_dir))
        names = value.filter(known)
        if not names:
            raise RequestError(f"{text} does not match any of {', '.join(known)}")
        yield from names
    elif isinstance(value, IntervalSweep):
        raise RequestError(
            f"{text} has infinitely many values; write range(START,STOP,STEP) or values"
        )
    else:
        _refuse_nested_sweeps(value, text)
        yield value


def _refuse_nested_sweeps(value: Any, text: str) -> None:
    """Raise RequestError if a list or a mapping in `value` contains a sweep."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for item in value:
            _refuse_nested_sweeps(item, text)
    elif isinstance(value, Sweep | Glob):
        raise RequestError(
            f"{text}: a list or a mapping cannot contain a choice, a range or a glob; "
            "write the values out"
        )


def _check_choice(override: Override, config_dir: Path | None) -> None:
    """Raise RequestError if `override` deletes a group or names an unknown choice.

    Also raise it if `override` sets the learning rate in a mapping, optimizer={lr:...}.
    """
    key, value = str(override.key_or_group), override.value()
    if key == "optimizer" and isinstance(value, dict) and "lr" in value:
        raise RequestError(_rate_message(str(override.input_line)))
    # A mapping such as norm={eps:1e-3} sets options of the choice.
    if key not in groups() or isinstance(value, dict):
        return
    if override.is_delete():
        raise RequestError(f"~{key}: every run needs {key}; write {key}=CHOICE")
    known = choices(key, config_dir)
    if str(value) not in known:
        name = "null" if value is None else str(value)[:100]
        also_called = other_names() if key == "norm" else {}
        clause = did_you_mean(name, known, also_called)
        if key == "data" and ("/" in name or Path(name).exists()):
            clause = _data_clause(name)
        raise RequestError(f"{key}={name} is unknown; {clause}")


def _data_clause(path: str) -> str:
    """Return how to name data of one's own, for `path` in the place of a choice."""
    kind = "text_csv" if path.lower().endswith((".csv", ".tsv")) else "folder"
    return f"for data of your own write data={kind} data.path={path}"


def value_text(value: Any) -> str:
    """Return a text that Hydra parses to `value`."""
    if isinstance(value, QuotedString):
        return str(value.with_quotes())
    if isinstance(value, list):
        return f"[{','.join(map(value_text, value))}]"
    if isinstance(value, dict):
        items = (f"{key}:{value_text(item)}" for key, item in value.items())
        return f"{{{','.join(items)}}}"
    if isinstance(value, str) and not _NEEDS_NO_QUOTES.fullmatch(value):
        return str(QuotedString(value, Quote.double).with_quotes())
    return "null" if value is None else str(value)


# A name or a path, but not a word that Hydra parses to another type, such as true.
_NEEDS_NO_QUOTES = re.compile(
    r"(?!(?:true|false|null|inf|nan)$)[A-Za-z_][\w./-]*", re.ASCII | re.IGNORECASE
)


def _syntax_message(text: str, error: Exception) -> str:
    """Return why `text` is not an override, for an error of Hydra's parser."""
    if isinstance(error, RecursionError):
        return f"{shortened(text)} is nested too deeply"
    reason = re.sub(r" is incompatible with .*", " is not allowed here", str(error))
    reason = " ".join(reason.split())
    if "integer string conversion" in reason:
        return f"{shortened(text)}: an integer has too many digits"
    if not isinstance(error, HydraException) or "while evaluating" in reason:
        return f"{shortened(text)} is not an override: {reason[:200]}"
    message = (
        f"{shortened(text)} is not an override; write KEY=VALUE, such as norm=group"
    )
    key, equals, value = text.partition("=")
    if equals:  # the value needs quotes, such as ~/flowers or a path with a comma
        # `shortened` returns a repr, so its quotes are removed.
        quoted = shortened(value)[1:-1] if len(value) > 200 else value
        message += f", or '{key}=\"{quoted}\"' in a shell"
    return message
