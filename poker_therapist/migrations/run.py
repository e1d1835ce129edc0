"""Apply, roll back and list migrations for an operator, with the time of each."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from yoyo import ancestors, descendants
from yoyo.migrations import MigrationList

from poker_therapist.errors import InvalidInput, escaped
from poker_therapist.location import redacted
from poker_therapist.migrations.atomic import AtomicBackend
from poker_therapist.migrations.engine import Engine
from poker_therapist.migrations.files import SQLMigration, Statement
from poker_therapist.migrations.order import in_order
from poker_therapist.migrations.progress import report_progress


@dataclass(slots=True)
class Run:
    """What was done, as it is done.

    Attributes:
        seconds: how long each migration took, by its id, with its backup.
        backup: the file that was made first; empty if none was.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    backup: str = ""


def apply(
    engine: Engine,
    sources: Sequence[str],
    *,
    to: str | None = None,
    say: Callable[[str], object],
    done: Run | None = None,
) -> Run:
    """Apply what is pending, or of it what `to` is or depends on.

    Args:
        engine: the database; an SQLite file is created if there is none.
        sources: folders of migrations.
        to: the id of a migration, or how it begins.
        say: called with a line for each thing that is done.
        done: where to note it, which holds it also if a later one fails.

    Raises:
        InvalidInput: `to` is not a migration.
        MigrationError, StorageError: what failed; what was applied before stays.
    """
    with engine.backend() as backend:
        done = _telling(backend, "applied", say, done)
        known = read(backend, sources)
        pending = chosen(backend, known, "apply", to)
        backend.tell_of_missing_files()
        backend.apply_migrations(pending)
    return done


def roll_back(
    engine: Engine,
    sources: Sequence[str],
    *,
    to: str | None = None,
    allow_loss: Callable[..., None] | None,
    say: Callable[[str], object],
    done: Run | None = None,
) -> Run:
    """Roll back the migration that was applied last, or `to` and what was applied after it.

    Args:
        engine: the database.
        sources: folders of migrations; what has no file there any more is rolled back by its kept text.
        to: the id of a migration, or how it begins.
        allow_loss: called with what rows and values would be deleted, and the last id to be rolled back;
            raises to refuse, which it does with `may_ask=False`. None allows it.
        say: called with a line for each thing that is done.
        done: where to note it, which holds it also if a later one fails.

    Raises:
        InvalidInput: `to` is not a migration.
        MigrationError, StorageError: what failed; what was rolled back before stays so.
    """
    with engine.backend() as backend:
        done = _telling(backend, "rolled back", say, done)
        backend.allow_loss = allow_loss
        known = read(backend, sources)
        backend.rollback_migrations(chosen(backend, known, "rollback", to))
    return done


def chosen(backend: AtomicBackend, known: MigrationList, direction: str, to: str | None) -> MigrationList:
    """Return which migrations a run is about, in order.

    Raises:
        InvalidInput: `to` is not a migration.
    """
    found = backend.to_apply(known) if direction == "apply" else backend.to_rollback(known)
    if to is None:
        return found if direction == "apply" else found[:1]
    target = _named(known, to)
    if direction == "apply":
        wanted = {target, *ancestors(target, known)}
    else:
        wanted = {target, *backend.to_rollback_to(known, target.id), *descendants(target, known)}
    return found.filter(lambda one: one in wanted)


def read(backend: AtomicBackend, sources: Sequence[str]) -> MigrationList:
    """Return the migrations of the sources, and those that are applied and have no file any more."""
    # An id that no file may have is a forgery.
    return backend.read(sources, [one for one in backend.kept_migrations() if one.id == escaped(one.id)])


def listed(backend: AtomicBackend, sources: Sequence[str]) -> list[tuple[SQLMigration, str]]:
    """Return each migration in order, with A if it is applied, U if not, I if it was interrupted."""
    applied, interrupted = backend.applied(), backend.interrupted()
    return [
        (one, "I" if one.id in interrupted else "A" if one.id in applied else "U")
        for one in in_order(read(backend, sources))
    ]


def _telling(backend: AtomicBackend, word: str, say: Callable[[str], object], done: Run | None = None) -> Run:
    """Let a backend report what it does, with the time of each migration; return the record of the run."""
    done = done or Run()
    last = time.perf_counter()

    def report(message: str) -> None:
        nonlocal last
        if message.startswith(f"{word} "):
            before, last = last, time.perf_counter()
            done.seconds[message.removeprefix(f"{word} ")] = last - before
            message += f" in {last - before:.2f} s"
        elif message.startswith("backup: "):
            done.backup = message.removeprefix("backup: ")
        say(message)

    def run(migration: SQLMigration, statement: Statement, direction: str) -> None:
        doing = {"apply": "applying", "rollback": "rolling back"}[direction]
        report_progress(f"{doing} {migration.id}, line {statement.line}")
        run_statement(migration, statement, direction)

    run_statement = backend.run
    backend.run = run  # type: ignore[method-assign]  # of this one alone, and never of yoyo's command
    backend.report, backend.shows_rows = report, True
    return done


def _named(known: MigrationList, to: str) -> SQLMigration:
    """Return the migration with that id, or the one whose id begins so."""
    found: list[SQLMigration] = [one for one in known if one.id == to] or [
        one for one in known if one.id.startswith(to)
    ]
    if len(found) != 1:
        ids = ", ".join(one.id for one in known)
        what = "matches more than one migration" if found else "is not a migration"
        raise InvalidInput(f"{redacted(to) or repr(to)} {what}: the migrations are {ids or 'none'}")
    return found[0]
