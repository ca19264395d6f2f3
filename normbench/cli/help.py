"""Help screens: commands in panels, examples that keep their lines, and colours."""

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, cast

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from normbench.cli.colours import BOLD, CYAN, DIM, echo, has_colours, styled

if TYPE_CHECKING:  # typer contains a copy of click, and older versions do not
    from typer._click.core import Context, Parameter
    from typer._click.formatting import HelpFormatter

MAX_WIDTH = 100
"""Characters in a line of a help screen."""
MAX_SUMMARY = 55
"""Characters of the first line of a command's docstring, which is never cut."""
UsageError = cast(type[Exception], typer.BadParameter.__base__)
"""click's class of errors in arguments; typer may use its own copy of click."""
COLOURS = "normbench.cli.help.colours"
"""The key in the `meta` of a context that says whether a screen has colours."""


def print_help(context: "Context") -> None:
    """Print the help screen of the command of `context` to standard output."""
    context.meta[COLOURS] = colours = has_colours()
    echo(context.get_help(), colours=colours)


class _Screen:
    """Writes one help screen to a formatter of click."""

    def __init__(self, context: "Context", formatter: "HelpFormatter") -> None:
        self._context, self._formatter = context, formatter
        self._colours = bool(context.meta.get(COLOURS))

    def write(self) -> None:
        command = self._context.command
        command.format_usage(self._context, self._formatter)
        for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
            self._line(f"\n{self._filled(paragraph, '  ')}")
        self._commands()
        for kind in ("argument", "option"):
            parameters = command.get_params(self._context)
            rows = [
                (_name(parameter), _help(parameter, self._context))
                for parameter in parameters
                if parameter.param_type_name == kind
                and not getattr(parameter, "hidden", False)
            ]
            self._rows(f"{kind.title()}s", rows)
        self._examples(inspect.cleandoc(command.epilog or ""))

    def _line(self, text: str) -> None:
        self._formatter.write(f"{text}\n")

    def _filled(self, text: str, indent: str) -> str:
        return textwrap.fill(
            " ".join(text.split()),
            self._formatter.width,
            initial_indent=indent,
            subsequent_indent=indent,
            break_on_hyphens=False,
            break_long_words=False,
        )

    def _heading(self, text: str) -> None:
        self._line(f"\n{styled(f'{text}:', BOLD, self._colours)}")

    def _commands(self) -> None:
        """Write the commands of a group, with a heading for each panel."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, command in getattr(self._context.command, "commands", {}).items():
            panel = getattr(command, "rich_help_panel", None) or "Commands"
            summary = inspect.cleandoc(command.help or "").partition("\n")[0]
            panels.setdefault(panel, []).append((name, summary))
        names = [name for rows in panels.values() for name, _ in rows]
        width = max(map(len, names), default=0)
        for panel, rows in panels.items():
            self._rows(panel, rows, width)

    def _rows(self, heading: str, rows: list[tuple[str, str]], width: int = 0) -> None:
        """Write two columns below a heading. The first is `width` wide, or as needed.

        A name that is longer than 28 characters has a line of its own.
        """
        if not rows:
            return
        self._heading(heading)
        width = width or max(len(name) for name, _ in rows if len(name) <= 28)
        for name, text in rows:
            indent = " " * (width + 4)
            lines = self._filled(text, indent) if text else indent
            first = styled(name, CYAN, self._colours)
            if len(name) > width:
                self._line(f"  {first}\n{lines}")
            else:
                self._line(f"  {first}{lines[len(name) + 2 :]}".rstrip())

    def _examples(self, examples: str) -> None:
        """Write the lines of `examples` as they are, with remarks in another style."""
        if not examples:
            return
        self._heading("Examples")
        for line in examples.splitlines():
            style = DIM if line.startswith("#") else ""
            self._line(f"  {styled(line, style, self._colours and bool(style))}")


def _name(parameter: "Parameter") -> str:
    """Return the first column of a parameter, such as "--where CONDITION"."""
    metavar = parameter.metavar or ""
    if parameter.param_type_name == "argument":
        return f"{metavar}..." if parameter.nargs != 1 else metavar
    # click sorts the names of the help option by chance.
    names = ", ".join(sorted(parameter.opts, key=len))
    return f"{names} {metavar}".rstrip()


def _help(parameter: "Parameter", context: "Context") -> str:
    """Return what click says of a parameter, with ranges and defaults in words."""
    _, text = parameter.get_help_record(context) or ("", "")
    text = re.sub(r"default: \(([^()]*)\)(?=[;\]])", r"default: \1", text)
    return re.sub(r"x>=(\d+)(?=[;\]])", r"at least \1", text)


def _usage(context: "Context") -> Iterator[str]:
    """Yield the parts of the usage line: optional arguments are in brackets."""
    yield "[OPTIONS]"
    for parameter in context.command.params:
        if parameter.param_type_name == "argument":
            name = _name(parameter)
            yield name if parameter.required else f"[{name}]"
    if hasattr(context.command, "commands"):
        yield "COMMAND [ARGS]..."


class Command(TyperCommand):
    """A command with a help screen of this module."""

    def collect_usage_pieces(self, ctx: "Context") -> list[str]:
        return list(_usage(ctx))

    def format_help(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        _Screen(ctx, formatter).write()

    def get_help_option(self, ctx: "Context") -> "TyperOption | None":
        return _with_colours(super().get_help_option(ctx))

    def parse_args(self, ctx: "Context", args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            option = getattr(error, "option_name", None) or ""
            has_overrides = any(p.name == "overrides" for p in self.params)
            if has_overrides and (key := _config_key(option)):
                raise UsageError(
                    f"{option} is not an option; {key} is a key of the config, so "
                    f"write {key}=VALUE",
                    ctx,
                ) from None
            raise


def _config_key(option: str) -> str:
    """Return the config key that an option such as "--batch-size" means, or ""."""
    from normbench.config.schema import RunConfig
    from normbench.config.suggestions import SYNONYMS

    name = option.lstrip("-").replace("-", "_")
    key = SYNONYMS.get(name, name)
    return key if key in {*RunConfig.model_fields, *SYNONYMS.values()} else ""


class Group(TyperGroup):
    """A group of commands with a help screen of this module."""

    command_class = Command

    def collect_usage_pieces(self, ctx: "Context") -> list[str]:
        return list(_usage(ctx))

    def format_help(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        _Screen(ctx, formatter).write()

    def get_help_option(self, ctx: "Context") -> "TyperOption | None":
        return _with_colours(super().get_help_option(ctx))

    def parse_args(self, ctx: "Context", args: list[str]) -> list[str]:
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            print_help(ctx)
            ctx.exit(2)
        return super().parse_args(ctx, args)


def _with_colours(option: "TyperOption | None") -> "TyperOption | None":
    """Let the option --help print the screen in colours."""

    def show(context: "Context", _: "Parameter", is_given: bool) -> None:
        if is_given and not context.resilient_parsing:
            print_help(context)
            context.exit()

    if option is not None:
        option.callback = show
    return option


Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="COMMAND", help="A command, such as: claim check", show_default=False
    ),
]


def help_(context: typer.Context, words: Words = None) -> None:
    """Show the help of a command."""
    screen = context.find_root()
    for word in words or ():
        command = getattr(screen.command, "commands", {}).get(word)
        if command is None:
            typer.echo(
                f"error: {screen.command_path} has no command {word!r}; `normbench "
                "help` lists the commands",
                err=True,
            )
            raise typer.Exit(2)
        screen = typer.Context(command, info_name=word, parent=screen)
    print_help(screen)
