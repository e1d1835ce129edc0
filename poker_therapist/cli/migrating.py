"""Commands about migrations: what has been applied, what would be, and doing it."""

import sys
from dataclasses import asdict
from pathlib import Path

import click

from poker_therapist import schema
from poker_therapist.cli import screen
from poker_therapist.cli.options import (
    PENDING,
    TROUBLE,
    Where,
    as_json,
    takes_database,
    takes_ini,
    takes_migrations,
    yes,
)
from poker_therapist.engines import engine_for
from poker_therapist.location import command_about
from poker_therapist.migrations import loss, run
from poker_therapist.migrations.log import read_log
from poker_therapist.migrations.scaffold import new_migration


@click.command()
@takes_migrations
@as_json
def status(where: Where, *, as_json: bool) -> int:
    """Say where a database stands.

    That is: the state of each migration, and whether the schema is what they build. Nothing is written.

    Exit code 0: up to date; 3: migrations are pending, or under way; 4: trouble.
    """
    location, folders = where.migrations()
    found = schema.read_status(location, folders)
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
@takes_migrations
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
    location, folders = where.migrations()
    with screen.progress() as progress:
        found = schema.rehearse(location, to=to, sources=folders, progress=progress)
    if as_json:
        screen.print_json(
            {
                "database": location.name,
                "safe": found.is_safe,
                "room_in_bytes": found.disk_space_needed,
                "reason": found.fallback_reason,
                "not_tried": found.not_tried,
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
@takes_migrations
@click.option("--to", metavar="ID", help="This one alone and what it depends on, as REVISION with yoyo.")
@as_json
def apply(where: Where, *, to: str | None, as_json: bool) -> None:
    """Apply the pending migrations.

    Each is applied whole or not at all. An SQLite file is created if there is none.
    """
    location, given = where.migrations(changes=True)
    folders = schema.sources_for(location, given)
    done = run.apply(engine_for(location), folders, to=to, say=_quiet if as_json else screen.say)
    if as_json:
        _print_done(location.name, "applied", done.seconds, done.backup)


@click.command()
@takes_migrations
@click.option(
    "--to", metavar="ID", help="This one and all that was applied after it. Unless given: the last applied."
)
@yes
@as_json
def rollback(where: Where, *, to: str | None, yes: bool, as_json: bool) -> None:
    """Roll back the migration that was applied last.

    With --to that one, and all that was applied after it. Where this would delete rows it asks, or wants
    --yes where nobody can be asked.
    """
    location, given = where.migrations(changes=True)

    def allow_loss(rows: dict[str, int], last: str) -> None:
        if not sys.stdin.isatty():
            call = command_about(location, "rollback", "--to", last, "--yes")
            raise loss.refusal(rows, [f"run `{call}`"])
        click.confirm(f"This deletes {loss.described(rows)}. Go on?", abort=True, err=True)

    folders = schema.sources_for(location, given)
    say = _quiet if as_json else screen.say
    may_lose = None if yes else allow_loss
    done = run.roll_back(engine_for(location), folders, to=to, allow_loss=may_lose, say=say)
    if as_json:
        _print_done(location.name, "rolled_back", done.seconds, done.backup)


@click.command("list")
@takes_migrations
@as_json
def list_(where: Where, *, as_json: bool) -> None:
    """List the migrations: applied, pending or interrupted.

    A is applied, U is unapplied, I is interrupted; beside it stands where the files are.
    """
    location, given = where.migrations()
    with engine_for(location).backend() as backend:
        found = run.listed(backend, schema.sources_for(location, given))
    if as_json:
        rows = [{"id": one.id, "status": status, "source": one.source_dir} for one, status in found]
        screen.print_json({"database": location.name, "migrations": rows})
        return
    rows_shown = [(one.id, status, one.source_dir) for one, status in found]
    screen.print_rows(("migration", "status", "source"), rows_shown)


@click.command()
@takes_database
@as_json
def log(where: Where, *, as_json: bool) -> None:
    """Show who migrated what, when and where.

    What was applied, rolled back, marked or unmarked, by whom and from which host, and what failed.
    """
    location = where.location()
    with engine_for(location).backend() as backend:
        entries = read_log(backend)
    if as_json:
        screen.print_json({"database": location.name, "log": [asdict(one) for one in entries]})
        return
    rows = [
        (
            one.migration,
            one.outcome,
            one.operation,
            (one.at or "")[:19],
            f"{one.user}@{one.host}".strip("@"),
            one.place,
        )
        for one in entries
    ]
    screen.print_rows(("migration", "outcome", "operation", "at (UTC)", "by", "place"), rows)


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


def _quiet(_line: str) -> None:
    """Say nothing: what was done is printed as JSON at the end."""


def _print_done(database: str, word: str, seconds: dict[str, float], backup: str) -> None:
    done = [{"id": name, "seconds": round(took, 3)} for name, took in seconds.items()]
    screen.print_json({"database": database, word: done, "backup": backup or None})
