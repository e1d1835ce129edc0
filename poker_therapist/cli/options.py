"""The options that commands share: for the database, the ini file and the migrations."""

import functools
import glob
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from yoyo import default_migration_table

from poker_therapist import schema
from poker_therapist.compat import override
from poker_therapist.errors import InvalidInput, escaped
from poker_therapist.location import Location, PostgreSQLLocation, locate
from poker_therapist.migrations.ini import find_ini, ini_beyond, ini_value

PENDING, TROUBLE = 3, 4
CODES = {
    0: "done",
    1: "error; the message says what to do",
    2: "usage error",
    PENDING: "migrations are pending",
    TROUBLE: "something needs attention",
}
VARIABLE = "POKER_THERAPIST_DATABASE"

FilePath = click.Path(path_type=Path)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes = click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation.")
_INI_OPTIONS = (
    click.option("--config", "-c", type=FilePath, metavar="FILE", help="The ini file, instead of yoyo.ini."),
    click.option("--no-config", is_flag=True, help="Do not read an ini file."),
)
_DATABASE_OPTION = click.option(
    "--database",
    "-d",
    metavar="PATH|URL",
    help=f"The database. Default: that of the nearest yoyo.ini, else {VARIABLE}, else RexVoice.db.",
)
_SOURCES_OPTION = click.option(
    "--sources",
    multiple=True,
    metavar="FOLDER",
    help="A folder of migrations; can be repeated. Default: the `sources` of the ini file, else the "
    "migrations of this version.",
)


class Command(click.Command):
    """A command whose help ends with an example and a table of its exit codes."""

    def __init__(
        self, *arguments: Any, example: str, codes: Mapping[int, str] | None = None, **options: Any
    ) -> None:
        """Set up the command.

        Args:
            arguments: as of Click's class.
            example: a call that works.
            codes: the meaning of its exit codes, where it differs from `CODES`.
            options: as of Click's class.
        """
        super().__init__(*arguments, **options)
        self.example = example
        everywhere = {code: CODES[code] for code in (0, 1, 2)}
        self.codes = dict(sorted((everywhere | dict(codes or {})).items()))

    @override
    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Example"):
            formatter.write(f"{'':>{formatter.current_indent}}{self.example}\n")
        write_codes(formatter, self.codes)


def write_codes(formatter: click.HelpFormatter, codes: Mapping[int, str]) -> None:
    """Write a table of exit codes into a help."""
    with formatter.section("Exit codes"):
        formatter.write_dl([(str(code), means) for code, means in codes.items()])


@dataclass(frozen=True, slots=True)
class Where:
    """The options that name a database, an ini file and folders of migrations."""

    database: str | None
    config: Path | None
    no_config: bool
    sources: tuple[str, ...] = ()

    def ini(self) -> Path | None:
        """Return the ini file: the one that was given, or the nearest yoyo.ini."""
        if self.config and self.no_config:
            raise click.UsageError("--config cannot be used with --no-config")
        if self.config or self.no_config:
            return self.config
        ini = find_ini()
        if ini is None and (beyond := ini_beyond()):
            print(escaped(beyond, keeping="\n"), file=sys.stderr)
        return ini

    def name(self, *, changes: bool = False) -> str:
        """Return the name of the database, from the options, an ini file or the environment.

        It is printed, with its origin, if the database will be changed, or if an ini file or the environment
        names a server, which receives the operator's password.
        """
        ini = None if self.database is not None else self.ini()
        name, by = self.database, "as given"
        if ini and (name := ini_value(ini.absolute(), "database", is_given=self.config is not None)):
            by = f"named by {ini.absolute()}"
        elif self.database is None:
            name, by = os.environ.get(VARIABLE), f"named by {VARIABLE}"
            if not name:
                name, by = "RexVoice.db", "the default"
        name = str(name)
        location = locate(name)
        if changes or (by.startswith("named") and isinstance(location, PostgreSQLLocation)):
            say_which(location, by)
        return name

    def folders(self) -> list[Path]:
        """Return the folders of migrations whose files are meant; see `folders_named`."""
        ini = None if self.sources else self.ini()
        if self.sources:
            return folders_named(self.sources, "--sources")
        if ini and (named := sources_of(ini, is_given=self.config is not None)):
            return folders_named(named, f"`sources` in {ini}")
        here = ini.absolute().parent if ini else Path.cwd()
        if not (folder := here / "sql_migrations" / "sqlite").is_dir():
            raise InvalidInput(
                f"there is no folder {folder}: run this in a checkout, or name one with --sources"
            )
        return [folder]

    def location(self, *, changes: bool = False) -> Location:
        """Return the location of the database; see `name`."""
        return locate(self.name(changes=changes))

    def migrations(self, *, changes: bool = False) -> tuple[Location, list[str]]:
        """Return where the database is, and the folders of its migrations; none for those of this version.

        As with yoyo, the `sources` of an ini file are also used for a database that it does not name.
        """
        location = self.location(changes=changes)
        found, ini = list(self.sources), self._ini_of_sources()
        if ini:
            table = ini_value(ini.absolute(), "migration_table", is_given=self.config is not None)
            if table not in (None, default_migration_table):
                raise InvalidInput(
                    f"{ini} sets migration_table to {escaped(table)}, which only yoyo itself supports: run "
                    "`yoyo list`, `yoyo apply` or `yoyo rollback` instead"
                )
            found = found or sources_of(ini, is_given=self.config is not None)
        if schema.are_shipped(found):
            return location, found
        places = tuple(one if ":" in one else os.path.abspath(one) for one in found)  # noqa: PTH100  # globs
        return replace(location, sources=places), found

    def _ini_of_sources(self) -> Path | None:
        """Return the ini file; if a database was given, ignore one that other users can write."""
        if self.config or self.no_config or self.database is None:
            return self.config or (None if self.no_config else find_ini())
        try:
            return find_ini()
        except InvalidInput as error:
            print(f"{error}", file=sys.stderr)
            return None


def sources_of(ini: Path, *, is_given: bool) -> list[str]:
    """Return the folders of migrations that an ini file names; none if it names none."""
    named = (ini_value(ini.absolute(), "sources", is_given=is_given) or "").strip()
    found = named.split()
    # yoyo would split the name of one folder at its blanks.
    return [named] if found[1:] and Path(named).is_dir() else found


def folders_named(sources: Sequence[str], by: str) -> list[Path]:
    """Return the folders that sources name as yoyo reads them: globbed, and seen from the working folder.

    Args:
        sources: one or more.
        by: what the operator corrects if there is no such folder.

    Raises:
        InvalidInput: there is no such folder, or a source is a Python package.
    """
    if inside := next((one for one in sources if one.startswith("package:")), None):
        raise InvalidInput(f"{inside} is a Python package, which is not supported: name a folder instead")
    found = [
        path
        for one in sources
        for path in ([Path(one)] if Path(one).is_dir() else map(Path, sorted(glob.glob(one))))  # noqa: PTH207  # as yoyo does
        if path.is_dir()
    ]
    if not found:
        raise InvalidInput(f"there is no folder {' '.join(sources)} relative to {Path.cwd()}: correct {by}")
    return list(dict.fromkeys(found))


def say_which(location: Location, by: str) -> None:
    """Print the database that is going to be changed, and where its name comes from."""
    print(escaped(f"database: {location.described} ({by})"), file=sys.stderr)


def takes_ini(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for the ini file to a command, as a `Where`."""

    @functools.wraps(command)
    def run(
        *,
        config: Path | None,
        no_config: bool,
        database: str | None = None,
        sources: tuple[str, ...] = (),
        **rest: Any,
    ) -> Any:
        return command(Where(database, config, no_config, sources), **rest)

    for option in reversed(_INI_OPTIONS):
        run = option(run)
    return run


def takes_sources(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for the migrations to a command, as a `Where`."""
    return _SOURCES_OPTION(takes_ini(command))


def takes_database(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for the database to a command, as a `Where`."""
    return _DATABASE_OPTION(takes_ini(command))


def takes_migrations(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for the database and the migrations to a command, as a `Where`."""
    return _DATABASE_OPTION(takes_sources(command))
