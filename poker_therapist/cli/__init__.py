"""The operator's commands: what yoyo cannot do. Run `poker-therapist --help`.

Exit codes: 0 done, up to date; 1 an error, said in one message; 2 a wrong call; 3 migrations are pending;
4 trouble: somebody must look.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from poker_therapist import __version__, schema
from poker_therapist.cli import checking, ordering, screen
from poker_therapist.engines import engine_for
from poker_therapist.errors import PokerTherapistError, escaped
from poker_therapist.location import Location, PostgreSQLLocation, hide_passwords, locate
from poker_therapist.migrations.engine import Holding
from poker_therapist.migrations.scaffold import new_migration
from poker_therapist.migrations.yoyo_command import (
    find_ini,
    ini_beyond,
    ini_value,
    stop_on_sigterm,
    write_any_character,
)
from poker_therapist.new_files import new_file, sync_folder
from poker_therapist.storage import PatternStorage, get_pattern_storage
from poker_therapist.tables import TABLES

PENDING, TROUBLE = 3, 4


def _shown(message: str) -> str:
    """Return a message without a password that was typed, and without control characters of others."""
    return escaped(hide_passwords(message, sys.argv[1:]), keeping="\n")


class _Commands(TyperGroup):
    """The commands; what the parser says of a wrong call repeats no password."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _hiding_passwords():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        with _hiding_passwords():
            return super().invoke(ctx)


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
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Look after Rex's memory. To apply, roll back and list migrations, use yoyo.",
    epilog="Exit codes: 0 done, 1 error, 2 wrong call, 3 migrations pending, 4 trouble.",
)

Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        "-d",
        metavar="PATH|URL",
        help="The database. Unless given: what the nearest yoyo.ini names, else RexVoice.db.",
        show_default=False,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="The ini file, instead of yoyo.ini.", show_default=False
    ),
]
NoConfig = Annotated[bool, typer.Option("--no-config", help="Look for no ini file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for a program.")]
Player = Annotated[int, typer.Argument(metavar="USER", help="The player's id.", show_default=False)]


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


@app.command()
def status(
    database: Database = None,
    *,
    config: Config = None,
    no_config: NoConfig = False,
    as_json: AsJson = False,
) -> None:
    """Say where a database stands: each migration, and whether its schema is what they build.

    Nothing is written. Exit code 0: up to date; 3: migrations are pending, or under way; 4: trouble.
    """
    location = locate(_choose(database, config, no_config))
    found = schema.read_status(location)
    code = TROUBLE if found.is_trouble else PENDING if found.pending or found.is_changing else 0
    states = {0: "up to date", PENDING: "migrating" if found.is_changing else "pending", TROUBLE: "trouble"}
    if as_json:
        screen.print_json(
            {
                "database": location.name,
                "exists": found.exists,
                "state": states[code],
                "migrations": [
                    {"id": one.id, "state": one.state, "applied_at": one.applied_at, "note": one.note}
                    for one in found.migrations
                ],
                "unjudged": found.drift_unknown_because,
                "mending": found.mending,
                "drift": [
                    {"about": one.about, "expected": one.expected, "actual": one.actual}
                    for one in found.drift
                ],
            }
        )
    else:
        screen.print_status(location, found)
    raise typer.Exit(code)


@app.command()
def rehearse(
    database: Database = None,
    *,
    config: Config = None,
    no_config: NoConfig = False,
    to: Annotated[
        str | None, typer.Option("--to", metavar="ID", help="The last migration to try.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try the pending migrations on a copy of this database: apply, roll back, apply again.

    The database itself is not written to. The verdict on each: exact (going back gives every byte of schema
    and rows), schema-exact (the same schema and rows, some values differ), adopted (it found tables that no
    migration made: it goes back by backup), or irreversible.
    Exit code 0: each works and none is irreversible; 4: not so.
    """
    location = locate(_choose(database, config, no_config))
    with screen.progress() as progress:
        found = schema.rehearse(location, to=to, progress=progress)
    if as_json:
        screen.print_json(
            {
                "database": location.name,
                "safe": found.is_safe,
                "room_in_bytes": found.disk_space_needed,
                "reason": found.fallback_reason,
                "migrations": [
                    {
                        "id": one.id,
                        "seconds": round(one.seconds, 3),
                        "rows_changed": one.changed,
                        "verdict": one.verdict or "failed",
                        "reasons": one.reasons,
                    }
                    for one in found.migrations
                ],
            }
        )
    else:
        screen.print_rehearsal(location, found)
    raise typer.Exit(0 if found.is_safe else TROUBLE)


@app.command()
def new(
    description: Annotated[
        str, typer.Argument(help='What it does, verb first: "add session mood".', show_default=False)
    ],
    config: Config = None,
    no_config: NoConfig = False,
) -> None:
    """Write the empty files of the next migration: a pair for each engine, numbered and linked."""
    ini = _ini(config, no_config)
    folder = ini.absolute().parent if ini else Path.cwd()
    for path in new_migration(description, folder / "sql_migrations"):
        screen.say(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


@app.command()
def backup(
    database: Database = None,
    *,
    config: Config = None,
    no_config: NoConfig = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Where to; beside an SQLite file, or here for a server, unless given.",
            show_default=False,
        ),
    ] = None,
    list_them: Annotated[
        bool, typer.Option("--list", help="Make none: list those beside an SQLite file, oldest first.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Copy the database to a file while others use it, and check the copy; or list the backups."""
    location = locate(_choose(database, config, no_config))
    if list_them and output is None:
        found = engine_for(location).list_backups(schema.all_sources(location))
        if not as_json:
            screen.print_backups(location, found)
            return
        backups = [
            {
                "file": str(one.path),
                "made_at": one.made_at,
                "bytes": one.size,
                "before": one.before,
                "schema_version": one.schema_version,
                "readable": one.is_readable,
            }
            for one in found
        ]
        screen.print_json({"database": location.name, "backups": backups})
        return
    if list_them or as_json:
        raise typer.BadParameter("--json goes with --list, and --list without --output")
    screen.say(str(engine_for(location).save_backup(output, schema.all_sources(location))))


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="The backup.", show_default=False)],
    database: Database = None,
    *,
    config: Config = None,
    no_config: NoConfig = False,
) -> None:
    """Put a backup in the place of the database, which is backed up first; others may be connected."""
    location = locate(_choose(database, config, no_config, changes=True))
    replaced = engine_for(location).restore(file, schema.all_sources(location), TABLES)
    if replaced:
        screen.say(f"backup: {replaced}")
    screen.say(f"restored {location.name}")
    with contextlib.suppress(PokerTherapistError):  # what may be wrong with it, `status` says
        for one in schema.read_status(location).drift:
            if one.about.startswith("trigger ") and one.expected is None:
                screen.say(f"{one.about} came with it and is of no migration: look at what it does")


@app.command()
def copy(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A path or URL.", show_default=False)],
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="An empty database, or a new file.", show_default=False)
    ],
) -> None:
    """Copy all players from one database to another, from SQLite to PostgreSQL say, or back.

    All of it or nothing, with the same ids, and compared row by row before it counts. What others save in
    SOURCE meanwhile is not in the copy: stop the app first, and point it to TARGET afterwards.
    """
    places = locate(source), locate(target)
    _say(places[1], "as given")
    with screen.progress() as progress:
        copied = schema.copy(*places, progress=progress)
    for table, count in copied.items():
        screen.say(f"{table}: {count} copied")
    screen.say(f"copied {places[0].name} to {places[1].name}")


@app.command(context_settings={"ignore_unknown_options": True})  # a player may have a number below 0
def export(
    user: Player,
    database: Database = None,
    *,
    config: Config = None,
    no_config: NoConfig = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A new file; printed unless given.", show_default=False),
    ] = None,
) -> None:
    """Write everything that Rex remembers of a player as JSON, in an order that stays the same.

    The app's own tables, an e-mail address in `users` say, are not reached.
    """
    with _storage(_choose(database, config, no_config)) as storage:
        found = storage.export_user(user)
    if output is None:
        screen.print_json(found)
        return
    with new_file(output) as (_, descriptor), open(descriptor, "wb", closefd=False) as file:
        file.write(f"{screen.json_text(found, 'utf-8')}\n".encode())


@app.command(context_settings={"ignore_unknown_options": True})
def forget(
    users: Annotated[
        list[int], typer.Argument(metavar="USER...", help="The players' ids.", show_default=False)
    ],
    database: Database = None,
    *,
    config: Config = None,
    no_config: NoConfig = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    backups: Annotated[
        bool, typer.Option("--backups", help="Delete the backups that hold a player, too.")
    ] = False,
) -> None:
    """Delete everything that Rex remembers of players, and every trace of it in the database file.

    The app's own tables, an e-mail address in `users` say, are not reached.
    """
    name, users = _choose(database, config, no_config, changes=True), list(dict.fromkeys(users))
    location = locate(name)
    with _storage(name) as storage:
        if not yes:
            who = f"player{'s' * (len(users) > 1)} {', '.join(map(str, users))}"
            typer.confirm(
                f"Delete everything that Rex remembers of {who} from {escaped(location.name)}, for ever?",
                abort=True,
            )
        for user, counts in storage.forget_users(users).items():
            for table, count in counts.items():
                screen.say(f"{f'player {user}: ' if len(users) > 1 else ''}{table}: {count} deleted")
    for user in users:
        _report_backups(location, user, delete=backups)


def _report_backups(location: Location, user: int, *, delete: bool) -> None:
    """Name the backups that hold a player, or delete them."""
    for path, holding in engine_for(location).backups_holding(user, TABLES).items():
        if holding is Holding.UNKNOWN:
            screen.say(f"{path} cannot be read, so it may hold player {user}: look, and delete it")
        elif holding is Holding.OF_OTHERS:
            screen.say(f"{path} still holds player {user}; this program has not made it: delete it yourself")
        elif delete:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            sync_folder(path.parent)
            screen.say(f"deleted {path}")
        elif holding is Holding.LEFT:
            screen.say(f"{path} is left over and may hold player {user}; --backups deletes it")
        else:
            screen.say(f"{path} still holds player {user}; --backups deletes such backups")


@app.command()
def purge(database: Database = None, *, config: Config = None, no_config: NoConfig = False) -> None:
    """Delete the context of all players that has expired."""
    with _storage(_choose(database, config, no_config, changes=True)) as storage:
        screen.say(f"{storage.purge_expired()} expired")


app.command()(checking.check), app.command()(checking.plan)


def _ini(config: Path | None, no_config: bool) -> Path | None:
    """Return the ini file that is meant: the one that was given, or the nearest yoyo.ini."""
    if config and no_config:
        raise typer.BadParameter("--config names a file, and --no-config means none: leave one of them out")
    if config or no_config:
        return config
    ini = find_ini()
    if ini is None and (beyond := ini_beyond()):
        print(escaped(beyond, keeping="\n"), file=sys.stderr)
    return ini


def _choose(database: str | None, config: Path | None, no_config: bool, *, changes: bool = False) -> str:
    """Return the database that is meant: what was given, what the ini file names, or RexVoice.db.

    Which one it is and who names it is said where something will be changed, and where an ini file leads to
    a server, which gets the operator's password.
    """
    ini = None if database is not None else _ini(config, no_config)
    named = ini_value(ini.absolute(), "database", is_given=config is not None) if ini else None
    name = named or "RexVoice.db" if database is None else database
    location = locate(name)
    if changes or (named and isinstance(location, PostgreSQLLocation)):
        by = (
            f"named by {ini.absolute()}"
            if ini and named
            else "the default"
            if database is None
            else "as given"
        )
        _say(location, by)
    return name


def _say(location: Location, by: str) -> None:
    print(escaped(f"database: {location.described} ({by})"), file=sys.stderr)


def _storage(name: str) -> PatternStorage:
    """Open the database for a command of the storage, without migrating it behind the operator's back."""
    return get_pattern_storage(name, migrate=False, on_connect=engine_for(locate(name)).limit)


ordering.add_to(app, _ini, _choose)


if __name__ == "__main__":
    main()
