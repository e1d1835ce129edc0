"""The statements that apply or rollback would run on a database, with their effects. Nothing is written."""

from collections.abc import Sequence
from dataclasses import dataclass

from poker_therapist.errors import DatabaseNotFound
from poker_therapist.migrations import run
from poker_therapist.migrations.atomic import AtomicBackend
from poker_therapist.migrations.effects import bare, code, effects, tables_made
from poker_therapist.migrations.engine import Engine
from poker_therapist.migrations.files import SQLMigration, Statement
from poker_therapist.migrations.lock_report import Lock


@dataclass(frozen=True, slots=True)
class PlannedStatement:
    """A statement, what it does to data, and the locks that it takes on tables that others use."""

    statement: Statement
    effects: list[str]
    locks: list[Lock]


@dataclass(frozen=True, slots=True)
class PlannedMigration:
    """One migration, in the direction of the plan.

    Attributes:
        found: the existing tables that it would adopt, and that its rollback would not drop.
    """

    migration: SQLMigration
    direction: str
    statements: list[PlannedStatement]
    found: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """Its file, as an operator knows it."""
        return self.migration.place(self.direction)

    @property
    def is_transactional(self) -> bool:
        """Whether one transaction holds all of it."""
        return self.migration.is_transactional(self.direction)


def plan(
    engine: Engine, backend: AtomicBackend, sources: Sequence[str], *, direction: str, to: str | None = None
) -> list[PlannedMigration]:
    """Return what would be run, in order.

    Args:
        engine: says which locks a statement takes.
        backend: of the database.
        sources: folders of migrations.
        direction: apply or rollback.
        to: the id of a migration, or how it begins: it and what it depends on, or what was applied after it.
            Unless given, all that is pending, or what was applied last.

    Raises:
        DatabaseNotFound: there is no database to roll back.
        InvalidInput: `to` is not a migration.
        MigrationError: what the command would be refused for.
    """
    if direction == "rollback" and not backend.exists():
        raise DatabaseNotFound(f"there is no database {backend.name}: correct the path")
    known = run.read(backend, sources)
    chosen = list(run.chosen(backend, known, direction, to))
    backend.require_unedited(list(known) if direction == "apply" else chosen)
    if chosen:  # what was interrupted comes first, as with the command
        backend._require_finished(chosen[0], direction)
    if direction == "apply":
        backend.require_in_order(chosen)
        chosen += known.post_apply if chosen else []
    else:
        backend._require_way_back(chosen)
    planned = list[PlannedMigration]()
    made = set[str]()
    for one in chosen:
        found: set[str] = set()
        # An interrupted migration may have created these tables itself.
        if direction == "apply" and not one.is_hook and one.id not in backend.interrupted():
            if backend.exists():
                found.update(backend._found_tables(one))
            named = {name.removeprefix("table ") for name in one.names_made(unless_there=True)}
            found |= named & made
            made |= {name.removeprefix("table ") for name in one.names_made() if name.startswith("table ")}
        planned.append(
            PlannedMigration(one, direction, _statements(engine, one, direction), tuple(sorted(found)))
        )
    return planned


def _statements(engine: Engine, one: SQLMigration, direction: str) -> list[PlannedStatement]:
    statements = one.statements(direction)
    if direction == "apply" and not one.is_hook:
        one.statements("rollback")
    planned, made = [], set[str]()
    for statement, does in zip(statements, effects(statements), strict=True):
        text = code(statement.text)[:100_000]
        # No other session sees a table before the transaction that created it has committed.
        locks = [lock for lock in engine.locks(text) if bare(lock.table) not in made]
        made |= tables_made(text) if one.is_transactional(direction) else set()
        planned.append(PlannedStatement(statement, does, locks))
    return planned
