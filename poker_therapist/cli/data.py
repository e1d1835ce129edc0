"""Commands about what the database holds: backups, copies, and the data of players."""

import contextlib
import shutil
from pathlib import Path
from typing import Annotated

import typer

from poker_therapist import schema
from poker_therapist.cli import screen
from poker_therapist.cli.options import (
    AsJson,
    Config,
    Database,
    NoConfig,
    Player,
    Sources,
    Yes,
    choose,
    choose_migrations,
    say_database,
)
from poker_therapist.engines import engine_for
from poker_therapist.errors import PokerTherapistError, escaped
from poker_therapist.location import Location, locate
from poker_therapist.migrations.engine import Holding
from poker_therapist.new_files import new_file, sync_folder
from poker_therapist.storage import PatternStorage, get_pattern_storage
from poker_therapist.tables import TABLES


def backup(
    database: Database = None,
    *,
    config: Config = None,
    no_config: NoConfig = False,
    sources: Sources = None,
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
    _, location, given = choose_migrations(database, config, no_config, sources)
    folders = schema.all_sources(location, given)
    if list_them and output is None:
        found = engine_for(location).list_backups(folders)
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
    screen.say(str(engine_for(location).save_backup(output, folders)))


def restore(
    file: Annotated[Path, typer.Argument(help="The backup.", show_default=False)],
    database: Database = None,
    *,
    config: Config = None,
    no_config: NoConfig = False,
    sources: Sources = None,
) -> None:
    """Put a backup in the place of the database, which is backed up first; others may be connected."""
    _, location, given = choose_migrations(database, config, no_config, sources, changes=True)
    replaced = engine_for(location).restore(file, schema.all_sources(location, given), TABLES)
    if replaced:
        screen.say(f"backup: {replaced}")
    screen.say(f"restored {location.name}")
    with contextlib.suppress(PokerTherapistError):  # what may be wrong with it, `status` says
        for one in schema.read_status(location, given).drift:
            if one.about.startswith("trigger ") and one.expected is None:
                screen.say(f"{one.about} came with it and is of no migration: look at what it does")


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
    say_database(places[1], "as given")
    with screen.progress() as progress:
        copied = schema.copy(*places, progress=progress)
    for table, count in copied.items():
        screen.say(f"{table}: {count} copied")
    screen.say(f"copied {places[0].name} to {places[1].name}")


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
    with _storage(choose(database, config, no_config).name) as storage:
        found = storage.export_user(user)
    if output is None:
        screen.print_json(found)
        return
    with new_file(output) as (_, descriptor), open(descriptor, "wb", closefd=False) as file:
        file.write(f"{screen.json_text(found, 'utf-8')}\n".encode())


def forget(
    users: Annotated[
        list[int], typer.Argument(metavar="USER...", help="The players' ids.", show_default=False)
    ],
    database: Database = None,
    *,
    config: Config = None,
    no_config: NoConfig = False,
    yes: Yes = False,
    backups: Annotated[
        bool, typer.Option("--backups", help="Delete the backups that hold a player, too.")
    ] = False,
) -> None:
    """Delete everything that Rex remembers of players, and every trace of it in the database file.

    The app's own tables, an e-mail address in `users` say, are not reached.
    """
    name, location, _ = choose(database, config, no_config, changes=True)
    users = list(dict.fromkeys(users))
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


def purge(database: Database = None, *, config: Config = None, no_config: NoConfig = False) -> None:
    """Delete the context of all players that has expired."""
    with _storage(choose(database, config, no_config, changes=True).name) as storage:
        screen.say(f"{storage.purge_expired()} expired")


def _storage(name: str) -> PatternStorage:
    """Open the database for a command of the storage, without migrating it behind the operator's back."""
    return get_pattern_storage(name, migrate=False, on_connect=engine_for(locate(name)).limit)
