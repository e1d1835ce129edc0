"""The operator's commands: what yoyo does, and what it cannot. Run `poker-therapist --help`.

Exit codes: 0 done, up to date; 1 an error, said in one message; 2 a wrong call; 3 migrations are pending;
4 trouble: somebody must look.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from poker_therapist import __version__
from poker_therapist.cli import checking, data, migrating, ordering
from poker_therapist.cli.options import VARIABLE
from poker_therapist.errors import PokerTherapistError, escaped
from poker_therapist.location import hide_passwords
from poker_therapist.migrations.yoyo_command import stop_on_sigterm, write_any_character


def _shown(message: str) -> str:
    """Return a message without a password that was typed, and without control characters of others."""
    given = (*sys.argv[1:], os.environ.get(VARIABLE, ""))
    return escaped(hide_passwords(message, given), keeping="\n")


class _Commands(TyperGroup):
    """The commands; what the parser says of a wrong call repeats no password."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command that does not have what is plain converted."""
        if command := super().get_command(ctx, cmd_name):
            _leave_plain(command.get_params(ctx))
        return command

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _leave_plain(self.get_params(ctx))
        return super().parse_args(ctx, args)

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _hiding_passwords():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        with _hiding_passwords():
            return super().invoke(ctx)


def _leave_plain(parameters: list[Any]) -> None:
    """Let parameters take nothing, or a text, as it is: Typer would import for long to convert it."""

    def process_value(parameter: Any, ctx: Any, value: Any) -> Any:
        if value is None and not parameter.required:
            return parameter.callback(ctx, parameter, None) if parameter.callback else None
        is_text = isinstance(value, str) and parameter.name in ("database", "to")
        return value if is_text else type(parameter).process_value(parameter, ctx, value)

    for parameter in parameters:
        parameter.process_value = partial(process_value, parameter)


@contextmanager
def _hiding_passwords() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if isinstance(message := getattr(error, "message", None), str):  # the parser's errors have one
            vars(error)["message"] = _shown(message)
        raise


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Look after Rex's memory: its migrations, its backups, and what it holds of players.",
    epilog="Exit codes: 0 done, 1 error, 2 wrong call, 3 migrations pending, 4 trouble.",
)


def main() -> None:
    """Run the command line; end an error of ours in one message and exit code 1."""
    write_any_character()
    stop_on_sigterm()
    try:
        app()
    except PokerTherapistError as error:
        print(f"poker-therapist: {_shown(str(error))}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader has gone: Python would complain once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # a backup that may not be deleted, say
        print(f"poker-therapist: {_shown(f'{error.filename}: {error.strerror}')}", file=sys.stderr)
        sys.exit(1)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


_COMMANDS: tuple[Callable[..., None], ...] = (
    migrating.status,
    migrating.rehearse,
    checking.check,
    checking.plan,
    migrating.apply,
    migrating.rollback,
    migrating.list_,
    migrating.log,
    migrating.new,
    ordering.renumber,
    data.backup,
    data.restore,
    data.copy,
    data.export,
    data.forget,
    data.purge,
)
for _command in _COMMANDS:
    # A player may have a number below 0.
    _settings = {"ignore_unknown_options": True} if _command in (data.export, data.forget) else None
    app.command(_command.__name__.rstrip("_"), context_settings=_settings)(_command)


if __name__ == "__main__":
    main()
