"""The commands that copy a whole database: to a backup, back from one, and to the other engine."""

import contextlib
from pathlib import Path

import click

from poker_therapist import schema
from poker_therapist.cli import screen
from poker_therapist.cli.options import Command, FilePath, Where, as_json, say_which, takes_migrations
from poker_therapist.engines import engine_for
from poker_therapist.errors import PokerTherapistError
from poker_therapist.location import locate
from poker_therapist.tables import TABLES


@click.command(cls=Command, example="poker-therapist backup --database RexVoice.db --output monday.backup")
@takes_migrations
@click.option(
    "--output",
    "-o",
    type=FilePath,
    metavar="FILE",
    help="Where to; beside an SQLite file, or here for a server, unless given.",
)
@click.option("--list", "list_them", is_flag=True, help="Make none: list those beside an SQLite file.")
@as_json
def backup(where: Where, *, output: Path | None, list_them: bool, as_json: bool) -> None:
    """Make a backup of the database, or list the backups.

    Others may use the database meanwhile. The backup is checked.
    """
    location, given = where.migrations()
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
        raise click.UsageError("--json goes with --list, and --list without --output")
    with screen.progress():
        made = engine_for(location).save_backup(output, folders)
    screen.say(str(made))


@click.command(cls=Command, example="poker-therapist restore --database RexVoice.db monday.backup")
@takes_migrations
@click.argument("file", type=FilePath)
def restore(where: Where, file: Path) -> None:
    """Restore the database from a backup.

    FILE is the backup. It is checked first, and the database is backed up before it is replaced.
    """
    location, given = where.migrations(changes=True)
    with screen.progress():
        replaced = engine_for(location).restore(file, schema.all_sources(location, given), TABLES)
    if replaced:
        screen.say(f"backup: {replaced}")
    screen.say(f"restored {location.name}")
    with contextlib.suppress(PokerTherapistError):  # what may be wrong with it, `status` says
        for one in schema.read_status(location, given).drift:
            if one.about.startswith("trigger ") and one.expected is None:
                screen.say(f"{one.about} came with it and is of no migration: look at what it does")


@click.command(cls=Command, example="poker-therapist copy RexVoice.db copy.db")
@click.argument("source")
@click.argument("target")
@click.option("--no-config", is_flag=True, expose_value=False, help="Look for no ini file: it never does.")
def copy(source: str, target: str) -> None:
    """Copy all players to another database.

    SOURCE is a path or URL. TARGET is an empty database or a new file, of either engine.

    All rows are copied or none, with the same ids, and compared before the commit. What others save in SOURCE
    meanwhile is not in the copy: stop the app first, and point it to TARGET afterwards.
    """
    places = locate(source), locate(target)
    say_which(places[1], "as given")
    with screen.progress() as progress:
        copied = schema.copy(*places, progress=progress)
    for table, count in copied.items():
        screen.say(f"{table}: {count} copied")
    screen.say(f"copied {places[0].name} to {places[1].name}")
