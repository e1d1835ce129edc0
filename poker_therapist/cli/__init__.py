"""The operator's commands: those of yoyo, and more. Run `poker-therapist --help`.

Exit codes: 0 done; 1 an error, in one message; 2 usage error; 3 migrations are pending; 4 something needs
attention.
"""

import importlib
import os
import sys
from types import ModuleType

import click

from poker_therapist import __version__
from poker_therapist.cli.options import CODES, VARIABLE, write_codes
from poker_therapist.errors import PokerTherapistError, escaped
from poker_therapist.location import hide_passwords
from poker_therapist.migrations.yoyo_command import stop_on_sigterm, write_any_character


def _migrating() -> ModuleType:
    return importlib.import_module("poker_therapist.cli.migrating")


def _checking() -> ModuleType:
    return importlib.import_module("poker_therapist.cli.checking")


def _ordering() -> ModuleType:
    return importlib.import_module("poker_therapist.cli.ordering")


def _backups() -> ModuleType:
    return importlib.import_module("poker_therapist.cli.backups")


def _players() -> ModuleType:
    return importlib.import_module("poker_therapist.cli.players")


# Each command, in the order of the help, and what imports the module that has it.
COMMANDS = {
    "status": _migrating,
    "plan": _checking,
    "rehearse": _migrating,
    "apply": _migrating,
    "rollback": _migrating,
    "list": _migrating,
    "log": _migrating,
    "new": _migrating,
    "check": _checking,
    "renumber": _ordering,
    "backup": _backups,
    "restore": _backups,
    "copy": _backups,
    "export": _players,
    "forget": _players,
    "purge": _players,
}


_IN_PYTHON = {"list": "list_"}


class _Commands(click.Group):
    """The commands, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # as Click's
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        found = getattr(COMMANDS[cmd_name](), _IN_PYTHON.get(cmd_name, cmd_name))
        return found if isinstance(found, click.Command) else None

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        write_codes(formatter, CODES)


@click.group(
    "poker-therapist",
    cls=_Commands,
    invoke_without_command=True,
    help="Manage Rex's database: its migrations, its backups and the data of players.",
)
@click.version_option(__version__, message="%(version)s", help="Print the version.")
@click.pass_context
def commands(ctx: click.Context) -> int | None:
    """Print the help where no command is named."""
    if ctx.invoked_subcommand is not None:
        return None
    click.echo(ctx.get_help())
    return click.UsageError.exit_code


def main() -> None:
    """Run the command line and exit; an error of ours, or a usage error, ends in one message."""
    write_any_character()
    stop_on_sigterm()
    done = dict[str, object]()  # for an error in JSON: what a command has done before it
    try:
        code = commands.main(prog_name="poker-therapist", standalone_mode=False, obj=done)
    except click.ClickException as error:
        usage = error.ctx.get_usage() if isinstance(error, click.UsageError) and error.ctx else ""
        _complain(f"{usage}\n\n" * bool(usage) + "Error: ", error.format_message(), done)
        sys.exit(error.exit_code)
    except click.Abort:
        _complain("", "Aborted.", done)
        sys.exit(1)
    except PokerTherapistError as error:
        _complain("poker-therapist: ", str(error), done)
        sys.exit(1)
    except BrokenPipeError:  # the reader has closed the pipe: Python would print another error at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # such as a backup that may not be deleted
        _complain("poker-therapist: ", f"{error.filename}: {error.strerror}", done)
        sys.exit(1)
    sys.exit(code)


def _complain(start: str, message: str, done: dict[str, object]) -> None:
    """Print a message without a password that was typed, and without control characters of others.

    With --json, a program gets it on standard output, too.
    """
    given = (*sys.argv[1:], os.environ.get(VARIABLE, ""))
    start, message = (escaped(hide_passwords(part, given), keeping="\n") for part in (start, message))
    print(f"{start}{message}", file=sys.stderr)
    if "--json" in sys.argv[1:]:
        from poker_therapist.cli.screen import print_json

        print_json({**done, "error": message})
