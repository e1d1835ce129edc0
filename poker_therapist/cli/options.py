"""The options that commands share, and what they mean: which database, and whose migrations."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from poker_therapist import schema
from poker_therapist.errors import InvalidInput, escaped
from poker_therapist.location import Location, PostgreSQLLocation, locate
from poker_therapist.migrations.yoyo_command import find_ini, ini_beyond, ini_value

PENDING, TROUBLE = 3, 4
VARIABLE = "POKER_THERAPIST_DATABASE"

Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        "-d",
        metavar="PATH|URL",
        help=f"The database. Unless given: what the nearest yoyo.ini names, or {VARIABLE}, else RexVoice.db.",
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
Sources = Annotated[
    list[str] | None,
    typer.Option(
        "--sources",
        metavar="FOLDER",
        help="A folder of migrations; may be repeated. Unless given: what the ini file names, else what "
        "comes with this version.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for a program.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Player = Annotated[int, typer.Argument(metavar="USER", help="The player's id.", show_default=False)]


class Chosen(NamedTuple):
    """What a command is about.

    Attributes:
        name: the database as it is named.
        location: where that is.
        sources: the folders of its migrations; empty for those that come with this version.
    """

    name: str
    location: Location
    sources: list[str]


def ini_file(config: Path | None, no_config: bool) -> Path | None:
    """Return the ini file that is meant: the one that was given, or the nearest yoyo.ini."""
    if config and no_config:
        raise typer.BadParameter("--config names a file, and --no-config means none: leave one of them out")
    if config or no_config:
        return config
    ini = find_ini()
    if ini is None and (beyond := ini_beyond()):
        print(escaped(beyond, keeping="\n"), file=sys.stderr)
    return ini


def choose(database: str | None, config: Path | None, no_config: bool, *, changes: bool = False) -> Chosen:
    """Return the database that is meant: what was given, or an ini file or the environment names.

    Which one it is and who names it is said where something will be changed, and where an ini file or the
    environment leads to a server, which gets the operator's password.
    """
    ini = None if database is not None else ini_file(config, no_config)
    name, by = database, "as given"
    if ini and (name := ini_value(ini.absolute(), "database", is_given=config is not None)):
        by = f"named by {ini.absolute()}"
    elif database is None and (name := os.environ.get(VARIABLE)):
        by = f"named by {VARIABLE}"
    name, by = (name, by) if name is not None else ("RexVoice.db", "the default")
    location = locate(name)
    if changes or (by.startswith("named") and isinstance(location, PostgreSQLLocation)):
        say_database(location, by)
    return Chosen(name, location, [])


def choose_migrations(
    database: str | None,
    config: Path | None,
    no_config: bool,
    sources: Sequence[str] | None,
    *,
    changes: bool = False,
) -> Chosen:
    """Return the database that is meant, as `choose` does, and the folders of its migrations.

    As with yoyo, an ini file says where migrations are also for a database that it does not name.
    """
    chosen = choose(database, config, no_config, changes=changes)
    found = list(sources or ())
    if not found and (ini := _ini_of_sources(database, config, no_config)):
        named = (ini_value(ini.absolute(), "sources", is_given=config is not None) or "").strip()
        found = named.split()
        if found[1:] and Path(named).is_dir():  # one folder with blanks in its name
            found = [named]
    if schema.are_shipped(found):
        return chosen._replace(sources=found)
    places = tuple(one if ":" in one else os.path.abspath(one) for one in found)  # noqa: PTH100  # globs
    return chosen._replace(location=replace(chosen.location, sources=places), sources=found)


def _ini_of_sources(database: str | None, config: Path | None, no_config: bool) -> Path | None:
    """Return the ini file; one that somebody else may have written is passed by if a database was given."""
    if config or no_config or database is None:
        return config or (None if no_config else find_ini())
    try:
        return find_ini()
    except InvalidInput as error:
        print(f"{error}", file=sys.stderr)
        return None


def say_database(location: Location, by: str) -> None:
    """Say which database is meant, and who names it."""
    print(escaped(f"database: {location.described} ({by})"), file=sys.stderr)
