"""Commands about migrations: what has been applied, what would be, and doing it."""

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
from poker_therapist.migrations import loss, run
from poker_therapist.migrations.files import shown
from poker_therapist.migrations.log import read_log
from poker_therapist.migrations.scaffold import new_migration


@click.command(
    cls=Command,
    example="poker-therapist status --database RexVoice.db",
    codes={
        0: "up to date",
        3: "migrations are pending, or somebody is applying them",
        4: "something needs attention",
    },
)
@takes_migrations
@as_json
def status(where: Where, *, as_json: bool) -> int:
    """Say where a database stands.

    It prints the state of each migration, and every difference between the schema and what the migrations
    build. Nothing is written.
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
        0: "every migration works and can be undone",
        4: "one does not, is irreversible, or makes others wait too long",
    },
)
@takes_migrations
@click.option("--to", metavar="ID", help="The last migration to try.")
@click.option(
    "--max-lock",
    type=click.FloatRange(min=0),
    default=2.0,
    metavar="SECONDS",
    show_default=True,
    help="How long players may wait.",
)
@as_json
def rehearse(where: Where, *, to: str | None, max_lock: float, as_json: bool) -> int:
    """Try the pending migrations on a copy.

    On a copy of the database each pending migration is applied, rolled back and applied again. The database
    itself is not changed.

    What others would wait for, and for how long, is measured on the rows of the copy, too.

    \b
    Verdicts:
      exact         the rollback restores schema and rows to the letter
      schema-exact  the same schema and rows; some values differ
      adopted       it found tables; only the backup goes back
      irreversible  the rollback loses something
      not judged    it was stopped in the middle before
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
@click.option("--to", metavar="ID", help="This one alone and what it depends on, as REVISION with yoyo.")
@as_json
def apply(where: Where, *, to: str | None, as_json: bool) -> None:
    """Apply the pending migrations.

    Each is applied whole or not at all. On SQLite a backup is made first, and the file is created if there is
    none.
    """
    location, given = where.migrations(changes=True)
    folders = schema.sources_for(location, given)
    with _told(location.name, "applied", as_json=as_json) as (done, say):
        run.apply(engine_for(location), folders, to=to, say=say, done=done)


@click.command(cls=Command, example="poker-therapist rollback --database RexVoice.db --to 004")
@takes_migrations
@click.option(
    "--to", metavar="ID", help="This one and all that was applied after it. Unless given: the last applied."
)
@yes
@as_json
def rollback(where: Where, *, to: str | None, yes: bool, as_json: bool) -> None:
    """Roll back the migration that was applied last.

    With --to, that one and everything that was applied after it. A rollback that would lose rows or values
    asks first; where nobody can be asked it needs --yes. On SQLite a backup is made first.
    """
    location, given = where.migrations(changes=True)

    def allow_loss(lost: str, last: str, *, may_ask: bool = True) -> None:
        if not (may_ask and sys.stdin.isatty()):
            call = command_about(location, "rollback", "--to", last, "--yes")
            raise loss.refusal(lost, [f"run `{call}`"])
        click.confirm(f"This deletes {lost}. Go on?", abort=True, err=True)

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

    A is applied, U is unapplied, I is interrupted. Beside each is the folder of its files.
    """
    location, given = where.migrations()
    with engine_for(location).backend() as backend:
        found = run.listed(backend, schema.sources_for(location, given))
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
    """Show who migrated what, when and where.

    It lists what was applied, rolled back, marked or unmarked, by whom and from which host, and what failed:
    all that the database has, of whichever folder.
    """
    location, _ = where.migrations()
    if where.sources:
        print("the log is of the whole database: --sources leaves nothing out", file=sys.stderr)
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
    """Write the empty files of the next migration.

    It writes a pair, numbered and linked to the one before, into the first folder of --sources or of the ini
    file, and into that of the other engine beside it.

    DESCRIPTION says what the migration does, verb first.
    """
    for path in new_migration(description, where.folders()):
        screen.say(shown(path))


@contextlib.contextmanager
def _told(database: str, word: str, *, as_json: bool) -> Iterator[tuple[run.Run, Callable[[str], object]]]:
    """Give a place for what a block does, and what says it; as JSON all at the end, also beside an error."""
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
