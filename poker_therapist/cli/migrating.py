"""Commands about migrations: show their state, rehearse them, apply them and roll them back."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict

import click

from poker_therapist import schema
from poker_therapist.cli import screen
from poker_therapist.cli.options import (
    PENDING,
    TROUBLE,
    Command,
    Where,
    as_json,
    takes_migrations,
    takes_sources,
    yes,
)
from poker_therapist.engines import engine_for
from poker_therapist.location import command_about
from poker_therapist.migrations import meanwhile, run
from poker_therapist.migrations.files import shown
from poker_therapist.migrations.log import read_log
from poker_therapist.migrations.scaffold import new_migration


@click.command(
    cls=Command,
    example="poker-therapist status --database RexVoice.db",
    codes={
        0: "up to date",
        3: "migrations are pending or being applied, or there is no database",
        4: "something needs attention",
    },
)
@takes_migrations
@as_json
def status(where: Where, *, as_json: bool) -> int:
    """Show the state of the migrations and of the schema.

    It prints the state of each migration, and each difference between the schema of the database and the
    schema that the migrations build. Nothing is written.
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


@click.command(
    cls=Command,
    example="poker-therapist rehearse --database RexVoice.db",
    codes={
        0: "every migration can be applied and rolled back",
        4: "a migration fails, is irreversible or holds a lock for too long",
    },
)
@takes_migrations
@click.option("--to", metavar="ID", help="The last migration to rehearse.")
@click.option(
    "--max-lock",
    type=click.FloatRange(min=0),
    default=2.0,
    metavar="SECONDS",
    show_default=True,
    help="The longest time that players may wait for a lock.",
)
@as_json
def rehearse(where: Where, *, to: str | None, max_lock: float, as_json: bool) -> int:
    """Rehearse the pending migrations on a copy.

    Each pending migration is applied, rolled back and applied again on a copy of the database. The database
    itself is not changed.

    It also measures, on the rows of the copy, for how long other sessions would wait for locks.

    \b
    Verdicts:
      exact         the rollback restores schema and rows exactly
      schema-exact  it restores schema and rows; some values differ
      adopted       tables existed before; to undo it, restore the backup
      irreversible  the rollback fails or does not restore everything
      not judged    it was interrupted before
    """  # noqa: D301  # Click's mark for lines that are not filled
    location, folders = where.migrations()
    with screen.progress(quiet=as_json) as progress:
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
                        "locks": {way: report.as_json() for way, report in one.locks.items()},
                    }
                    for one in found.migrations
                ],
            }
        )
    else:
        screen.print_rehearsal(location, found, max_lock)
    waits = any(report.too_long(max_lock) for one in found.migrations for report in one.locks.values())
    return 0 if found.is_safe and not waits else TROUBLE


@click.command(cls=Command, example="poker-therapist apply --database RexVoice.db")
@takes_migrations
@click.option("--to", metavar="ID", help="Only this migration and its dependencies, as yoyo's REVISION.")
@as_json
def apply(where: Where, *, to: str | None, as_json: bool) -> None:
    """Apply the pending migrations.

    A migration in a transaction is applied completely or not at all. On SQLite the file is created if it
    does not exist, and a backup is made first.
    """
    location, given = where.migrations(changes=True)
    folders = schema.sources_for(location, given)
    with _told(location.name, "applied", as_json=as_json) as (done, say):
        run.apply(engine_for(location), folders, to=to, say=say, done=done)


@click.command(cls=Command, example="poker-therapist rollback --database RexVoice.db --to 004")
@takes_migrations
@click.option(
    "--to", metavar="ID", help="This migration and all that were applied after it. Default: the last one."
)
@yes
@as_json
def rollback(where: Where, *, to: str | None, yes: bool, as_json: bool) -> None:
    """Roll back the migration that was applied last.

    With --to, that migration and all that were applied after it. A rollback that would delete rows or values
    asks for confirmation; without a terminal it requires --yes. On SQLite a backup is made first.
    """
    location, given = where.migrations(changes=True)

    def allow_loss(lost: str, last: str, *, may_ask: bool = True) -> None:
        if not (may_ask and sys.stdin.isatty()):
            call = command_about(location, "rollback", "--to", last, "--yes")
            raise meanwhile.refusal(lost, [f"run `{call}`"])
        click.confirm(f"This deletes {lost}. Continue?", abort=True, err=True)

    folders = schema.sources_for(location, given)
    may_lose = None if yes else allow_loss
    with _told(location.name, "rolled_back", as_json=as_json) as (done, say):
        run.roll_back(engine_for(location), folders, to=to, allow_loss=may_lose, say=say, done=done)


@click.command(
    "list",
    cls=Command,
    example="poker-therapist list --database RexVoice.db",
    codes={3: "there is no database"},
)
@takes_migrations
@as_json
def list_(where: Where, *, as_json: bool) -> int:
    """List the migrations: applied, pending or interrupted.

    A is applied, U is unapplied, I is interrupted. The last column is the folder of the files.
    """
    location, given = where.migrations()
    with engine_for(location).backend() as backend:
        found = run.listed(backend, schema.sources_for(location, given, backend))
        exists = backend.exists()
    if as_json:
        rows = [{"id": one.id, "status": status, "source": one.source_dir} for one, status in found]
        screen.print_json({"database": location.name, "exists": exists, "migrations": rows})
    else:
        rows_shown = [(one.id, status, one.source_dir) for one, status in found]
        screen.print_rows(("migration", "status", "source"), rows_shown)
        screen.tell_if_missing(location, exists=exists)
    return 0 if exists else PENDING


@click.command(
    cls=Command, example="poker-therapist log --database RexVoice.db", codes={3: "there is no database"}
)
@takes_migrations
@as_json
def log(where: Where, *, as_json: bool) -> int:
    """Show the history of the migrations.

    It lists what was applied, rolled back, marked or unmarked, and what failed, each with its time, user and
    host, for the migrations of all folders.
    """
    location, _ = where.migrations()
    if where.sources:
        print("the log covers all folders: --sources is ignored", file=sys.stderr)
    with engine_for(location).backend() as backend:
        entries, exists = read_log(backend), backend.exists()
    if as_json:
        found = [asdict(one) for one in entries]
        screen.print_json({"database": location.name, "exists": exists, "log": found})
    elif exists:
        screen.print_log(location, entries)
    screen.tell_if_missing(location, exists=exists or as_json)
    return 0 if exists else PENDING


@click.command(cls=Command, example='poker-therapist new "add session mood"')
@takes_sources
@click.argument("description")
def new(where: Where, description: str) -> None:
    """Create the files of the next migration.

    It writes an apply script and a rollback script, with the next number and a dependency on the migration
    before, to the first folder of --sources or of the ini file, and to the other engine's folder beside it.

    DESCRIPTION is what the migration does, beginning with a verb.
    """
    for path in new_migration(description, where.folders()):
        screen.say(shown(path))


@contextlib.contextmanager
def _told(database: str, word: str, *, as_json: bool) -> Iterator[tuple[run.Run, Callable[[str], object]]]:
    """Yield a `Run` to fill, and what prints a line; JSON is printed at the end, also on an error."""
    done = run.Run()
    try:
        with screen.progress(quiet=as_json) as progress:
            yield done, (lambda _line: None) if as_json else progress.say
    finally:
        seconds = [{"id": name, "seconds": round(took, 3)} for name, took in done.seconds.items()]
        said = {"database": database, word: seconds, "backup": done.backup or None}
        click.get_current_context().obj.update(said)
    if as_json:
        screen.print_json(said)
