"""What most commands take: which database is meant, which ini file, JSON instead of text."""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from poker_therapist.errors import escaped
from poker_therapist.location import Location, PostgreSQLLocation, locate
from poker_therapist.migrations.yoyo_command import find_ini, ini_beyond, ini_value

PENDING, TROUBLE = 3, 4

FilePath = click.Path(path_type=Path)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for a program.")
_INI_OPTIONS = (
    click.option("--config", "-c", type=FilePath, metavar="FILE", help="The ini file, instead of yoyo.ini."),
    click.option("--no-config", is_flag=True, help="Look for no ini file."),
)
_DATABASE_OPTION = click.option(
    "--database",
    "-d",
    metavar="PATH|URL",
    help="The database. Unless given: what the nearest yoyo.ini names, else RexVoice.db.",
)


@dataclass(frozen=True, slots=True)
class Where:
    """Which database an operator means."""

    database: str | None
    config: Path | None
    no_config: bool

    def ini(self) -> Path | None:
        """Return the ini file that is meant: the one that was given, or the nearest yoyo.ini."""
        if self.config and self.no_config:
            raise click.UsageError("--config names a file, and --no-config means none: leave one of them out")
        if self.config or self.no_config:
            return self.config
        ini = find_ini()
        if ini is None and (beyond := ini_beyond()):
            print(escaped(beyond, keeping="\n"), file=sys.stderr)
        return ini

    def name(self, *, changes: bool = False) -> str:
        """Return the database that is meant: what was given, what the ini file names, or RexVoice.db.

        Which one it is and who names it is said where something will be changed, and where an ini file leads
        to a server, which gets the operator's password.
        """
        ini = None if self.database is not None else self.ini()
        named = ini_value(ini.absolute(), "database", is_given=self.config is not None) if ini else None
        name = named or "RexVoice.db" if self.database is None else self.database
        location = locate(name)
        if changes or (named and isinstance(location, PostgreSQLLocation)):
            by = "the default" if self.database is None else "as given"
            say_which(location, f"named by {ini.absolute()}" if ini and named else by)
        return name

    def location(self, *, changes: bool = False) -> Location:
        """Return where the database is that is meant; see `name`."""
        return locate(self.name(changes=changes))


def say_which(location: Location, by: str) -> None:
    """Name the database that is going to be changed, and who names it."""
    print(escaped(f"database: {location.described} ({by})"), file=sys.stderr)


def takes_ini(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say which ini file is meant, as a `Where`."""

    @functools.wraps(command)
    def run(*, config: Path | None, no_config: bool, database: str | None = None, **rest: Any) -> Any:
        return command(Where(database, config, no_config), **rest)

    for option in reversed(_INI_OPTIONS):
        run = option(run)
    return run


def takes_database(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say which database is meant, as a `Where`."""
    return _DATABASE_OPTION(takes_ini(command))
