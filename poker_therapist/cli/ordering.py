"""`poker-therapist renumber`: two branches have added a migration each, and one becomes the next one."""

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from poker_therapist.cli import screen
from poker_therapist.cli.options import Config, Database, NoConfig, choose, ini_file
from poker_therapist.engines import engine_for
from poker_therapist.errors import InvalidInput, PokerTherapistError, escaped
from poker_therapist.location import Location
from poker_therapist.migrations.files import shown
from poker_therapist.migrations.renumber import renumber as renumber_files
from poker_therapist.migrations.yoyo_command import ini_value

_ENGINES = ("sqlite", "postgresql", "citus")


def renumber(
    migration: Annotated[str, typer.Argument(metavar="ID", help="The migration.", show_default=False)],
    database: Database = None,
    *,
    config: Config = None,
    no_config: NoConfig = False,
) -> None:
    """Make a pending migration the next one: its files of all engines, what it depends on, what names it.

    Those that depend on it follow it. Refused for one that is released, or applied in the database.
    """
    folders = _folders(ini_file(config, no_config), is_given=config is not None)
    _renumber(migration, folders, choose(database, config, no_config).location)


def _renumber(migration: str, folders: list[Path], location: Location) -> None:
    applied = set[str]()
    try:
        with engine_for(location).backend() as backend:
            applied |= backend.applied().keys() | backend.interrupted()
    except PokerTherapistError as error:
        print(escaped(f"whether it is applied cannot be seen: {error}", keeping="\n"), file=sys.stderr)
    released = {one for folder in folders for one in _released(folder.parent / "released.sha256")}

    def require_free(names: Collection[str]) -> None:
        for where, taken in ((f"applied in {location.name}", applied), ("released", released)):
            if found := sorted(taken & set(names)):
                others = "renumber the other one of the two, or write `-- out-of-order: true` into its header"
                raise InvalidInput(f"{', '.join(found)} is {where}, so its files may not change: {others}")

    changes = renumber_files(migration, folders, require_free)
    for change in changes:
        renamed = f" -> {change.new.name}" if change.new != change.old else ": changed"
        screen.say(f"{shown(change.old)}{renamed}")
    if not changes:
        screen.say(f"{migration} is the next one already")


def _folders(ini: Path | None, *, is_given: bool) -> list[Path]:
    """Return the folders of the ini file's sources, and those of the other engines beside them."""
    sources = (ini and ini_value(ini.absolute(), "sources", is_given=is_given)) or ""
    given = [sources] if Path(sources).is_dir() else sources.split()
    if not sources:
        given = [str((ini.absolute().parent if ini else Path.cwd()) / "sql_migrations" / _ENGINES[0])]
    found = [
        folder
        for source in map(Path, given)
        for folder in ([source.parent / name for name in _ENGINES] if source.name in _ENGINES else [source])
        if folder.is_dir()
    ]
    if not found:
        raise InvalidInput(f"there is no folder {' '.join(given) or sources}: run this in a checkout")
    return list(dict.fromkeys(found))


def _released(file: Path) -> set[str]:
    """Return the ids of the migrations that have been released."""
    if not file.is_file():
        return set()
    names = [line.split()[-1] for line in file.read_text(encoding="utf-8").splitlines() if line.split()]
    return {Path(name).name.removesuffix(".sql").removesuffix(".rollback") for name in names}
