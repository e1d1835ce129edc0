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
    help="The new file. Default: beside the SQLite file; for a server, in the working folder.",
)
@click.option("--list", "list_them", is_flag=True, help="Only list the backups beside the SQLite file.")
@as_json
def backup(where: Where, *, output: Path | None, list_them: bool, as_json: bool) -> None:
    """Back up the database, or list the backups.

    Other programs can use the database at the same time. The finished backup is checked.
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
        raise click.UsageError("--json requires --list; --list cannot be used with --output")
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
    with contextlib.suppress(PokerTherapistError):  # `status` reports what may be wrong with it
        for one in schema.read_status(location, given).drift:
            if one.about.startswith("trigger ") and one.expected is None:
                screen.say(f"{one.about} is in the backup, but no migration creates it: check what it does")


@click.command(cls=Command, example="poker-therapist copy RexVoice.db copy.db")
@click.argument("source")
@click.argument("target")
@click.option("--no-config", is_flag=True, expose_value=False, help="No effect: copy reads no ini file.")
def copy(source: str, target: str) -> None:
    """Copy the data of all players to another database.

    SOURCE and TARGET are paths or URLs of either engine. TARGET is an empty database or a new file.

    All rows are copied, with the same ids, or none. They are compared before the commit. Rows that are saved
    in SOURCE during the copy are not included: stop the app first, and point it to TARGET afterwards.
    """
    places = locate(source), locate(target)
    say_which(places[1], "as given")
    with screen.progress() as progress:
        copied = schema.copy(*places, progress=progress)
    for table, count in copied.items():
        screen.say(f"{table}: {count} copied")
    screen.say(f"copied {places[0].name} to {places[1].name}")
