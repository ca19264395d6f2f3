"""Types of the numbers in a config or a record."""

from typing import Annotated

from pydantic import Field

MAX_INT = 2**53
"""The maximum integer in a config or a record.

A float represents each integer up to this maximum exactly.
"""

Fraction = Annotated[float, Field(ge=0, lt=1)]
PositiveInt = Annotated[int, Field(gt=0, le=MAX_INT)]
