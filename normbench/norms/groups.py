"""The number of groups of a norm that has groups of channels."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import PlainValidator

from normbench.errors import Incompatible, RequestError
from normbench.norms.base import Norm

NUM_GROUPS = 8
"""The default number of groups in every norm that has groups of channels."""
AUTO: Literal["auto"] = "auto"
MAX_GROUPS = 32
"""The number of groups of `num_groups="auto"` if there are enough channels (Wu & He
2018)."""
MIN_GROUP_SIZE = 4
"""The fewest channels in a group of `num_groups="auto"`."""
AUTO_RULE = (
    f"num_groups=auto takes the largest divisor of the channels that is at most "
    f"{MAX_GROUPS} and leaves at least {MIN_GROUP_SIZE} channels in a group, or 1"
)


def _checked(value: object) -> object:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value > 0
    if is_count or value == AUTO:
        return value
    raise ValueError("input should be a positive integer or auto")


NumGroups = Annotated[int | Literal["auto"], PlainValidator(_checked)]
"""The type of an option `num_groups`: a number, or "auto" for that of `AUTO_RULE`."""


def auto_groups(channels: int) -> int:
    """Return the number of groups of `AUTO_RULE`."""
    most = min(MAX_GROUPS, channels // MIN_GROUP_SIZE)
    return next((n for n in range(most, 0, -1) if channels % n == 0), 1)


def channels_per_group(options: Mapping[str, object], channels: int) -> int | None:
    """Return the channels in a group of a norm with `options`; all without groups.

    None if the options are of another type.
    """
    size, groups = options.get("group_size"), options.get("num_groups", 1)
    if isinstance(size, int):
        return size
    if groups == AUTO:
        return channels // auto_groups(channels)
    return channels // groups if isinstance(groups, int) else None


def resolve_num_groups(
    norm: Norm, num_groups: int | Literal["auto"], group_size: int | None
) -> int:
    """Return `num_groups`, or the channels of `norm` divided by `group_size` if given.

    Raises Incompatible if the option does not divide the channels, and RequestError if
    both options are given.
    """
    if group_size is not None and num_groups != NUM_GROUPS:
        raise RequestError(
            f"norm={norm.name}: norm.num_groups={num_groups} and "
            f"norm.group_size={group_size} are both given; give one of them"
        )
    if num_groups == AUTO:
        num_groups = auto_groups(norm.channels)
    option, divisor = "num_groups", num_groups
    if group_size is not None:
        option, divisor = "group_size", group_size
    if norm.channels % divisor:
        divisors = [n for n in range(1, norm.channels + 1) if norm.channels % n == 0]
        raise Incompatible(
            f"norm={norm.name}: norm.{option}={divisor} does not divide "
            f"{norm.channels} channels; these do: {', '.join(map(str, divisors))}"
        )
    return divisor if group_size is None else norm.channels // divisor
