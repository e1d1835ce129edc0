"""Concurrent migrations between the choice of migrations and their execution."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from poker_therapist.errors import MigrationError, MigrationInterrupted, escaped
from poker_therapist.location import command_about
from poker_therapist.migrations.order import natural


def require_consent(backend: Any, migrations: Sequence[Any]) -> None:
    """Wait for a running migration; refuse a choice that it changed, and a loss that is not allowed."""
    with backend.translating_errors(), backend.migration_lock():
        with backend.one_transaction():
            applied, interrupted = backend.chosen_among or (backend.applied(), backend.interrupted())
            later = (backend.applied().keys() - applied) | (backend.interrupted() - interrupted)
        _require_same(backend, later)
        if not backend.allow_loss or not migrations:
            return
        # Applying needs none of these, whose patterns take long to compile.
        from poker_therapist.migrations.clauses import plain
        from poker_therapist.migrations.loss import found_losses
        from poker_therapist.migrations.measure import Agreed, key

        found = found_losses(backend, migrations)
    if found:
        backend.allow_loss(", ".join(one.words for one in found.values()), migrations[-1].id)
    most = {(key(backend, table), plain(column)): one.many for (table, column), one in found.items()}
    backend.agreed = Agreed(migrations[-1].id, most, any(not one.many for one in found.values()))


def refusal(loss: str, ways: Sequence[str]) -> MigrationError:
    """Return the error for a rollback that would delete rows or values without permission."""
    return MigrationError(
        f"this rollback would delete {loss}, so nothing was changed: to allow it, {', or '.join(ways)}"
    )


def say_nothing_to_apply(backend: Any, known: Collection[Any]) -> None:
    """Report that nothing is pending, after a running migration; raise if one was interrupted."""
    if backend.is_being_changed():
        with backend.translating_errors(), backend.migration_lock(), backend.one_transaction():
            applied = backend.applied()
        _require_same(backend, {one.id for one in known if one.file and one.id not in applied})
    if left := backend.interrupted():
        name = min(left, key=natural)
        raise MigrationInterrupted(f"{escaped(name)}: {backend.how_to_finish(name)}", migration_id=name)
    is_newer = any(one.file is None for one in known)
    backend.tell_operator(f"nothing to apply{'' if is_newer else ': the database is up to date'}")


def _require_same(backend: Any, changed: Collection[str]) -> None:
    if changed:
        status = command_about(replace(backend.location, yoyo=None), "status")
        raise MigrationError(
            f"a concurrent process has migrated {backend.name} ({escaped(', '.join(sorted(changed)))}): "
            f"check it with `{status}`, and run the command again"
        )
