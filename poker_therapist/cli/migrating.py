"""The commands about migrations: where a database stands, a rehearsal, a new pair of files."""

from pathlib import Path

import click

from poker_therapist import schema
from poker_therapist.cli import screen
from poker_therapist.cli.options import PENDING, TROUBLE, Where, as_json, takes_database, takes_ini
from poker_therapist.migrations.scaffold import new_migration


@click.command()
@takes_database
@as_json
def status(where: Where, *, as_json: bool) -> int:
    """Say where a database stands.

    That is: the state of each migration, and whether the schema is what they build. Nothing is written.

    Exit code 0: up to date; 3: migrations are pending, or under way; 4: trouble.
    """
    location = where.location()
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
    return code


@click.command()
@takes_database
@click.option("--to", metavar="ID", help="The last migration to try.")
@as_json
def rehearse(where: Where, *, to: str | None, as_json: bool) -> int:
    """Try the pending migrations on a copy.

    Each is applied to a copy of this database, rolled back and applied again. The database itself is not
    written to.

    The verdict on each: exact (going back gives every byte of schema
    and rows), schema-exact (the same schema and rows, some values differ), adopted (it found tables that no
    migration made: it goes back by backup), or irreversible.

    Exit code 0: each works and none is irreversible; 4: not so.
    """
    location = where.location()
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
                        "broken_promises": one.broken_promises,
                    }
                    for one in found.migrations
                ],
            }
        )
    else:
        screen.print_rehearsal(location, found)
    return 0 if found.is_safe else TROUBLE


@click.command()
@takes_ini
@click.argument("description")
def new(where: Where, description: str) -> None:
    """Write the empty files of the next migration.

    That is: a pair for each engine, numbered and linked to the one before.

    DESCRIPTION is what it does, verb first: "add session mood".
    """
    ini = where.ini()
    folder = ini.absolute().parent if ini else Path.cwd()
    for path in new_migration(description, folder / "sql_migrations"):
        screen.say(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))
