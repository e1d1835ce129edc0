"""`poker-therapist renumber`: two branches have added a migration each, and one becomes the next one."""

import sys
from collections.abc import Collection
from pathlib import Path

import click

from poker_therapist.cli import screen
from poker_therapist.cli.options import Command, Where, takes_migrations
from poker_therapist.engines import engine_for
from poker_therapist.errors import InvalidInput, PokerTherapistError, escaped
from poker_therapist.migrations.files import shown
from poker_therapist.migrations.renumber import renumber as renumber_files
from poker_therapist.migrations.scaffold import with_twins


@click.command(cls=Command, example="poker-therapist renumber 006_add_session_mood")
@takes_migrations
@click.argument("migration", metavar="ID")
def renumber(where: Where, migration: str) -> None:
    """Make a pending migration the next one.

    Its files for all engines are renamed, and its dependency and what names it are rewritten. Migrations that
    depend on it follow it. One that is released, or applied in the database, is refused.
    """
    folders = with_twins(where.folders(), optional=True)
    location = where.location()
    applied = set[str]()
    try:
        with engine_for(location).backend() as backend:
            applied |= backend.applied().keys() | backend.interrupted()
    except PokerTherapistError as error:
        print(escaped(f"whether it is applied cannot be seen: {error}", keeping="\n"), file=sys.stderr)
    released = {one for folder in folders for one in _released(folder.parent / "released.sha256")}

    def require_free(names: Collection[str]) -> None:
        for place, taken in ((f"applied in {location.name}", applied), ("released", released)):
            if found := sorted(taken & set(names)):
                others = "renumber the other one of the two, or write `-- out-of-order: true` into its header"
                raise InvalidInput(f"{', '.join(found)} is {place}, so its files may not change: {others}")

    changes = renumber_files(migration, folders, require_free)
    for change in changes:
        renamed = f" -> {change.new.name}" if change.new != change.old else ": changed"
        screen.say(f"{shown(change.old)}{renamed}")
    if not changes:
        screen.say(f"{migration} is the next one already")


def _released(file: Path) -> set[str]:
    """Return the ids of the migrations that have been released."""
    if not file.is_file():
        return set()
    names = [line.split()[-1] for line in file.read_text(encoding="utf-8").splitlines() if line.split()]
    return {Path(name).name.removesuffix(".sql").removesuffix(".rollback") for name in names}
