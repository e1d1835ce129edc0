"""How many rows and values a rollback would lose: what `effects.losses` reads in its text, counted."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

from poker_therapist.errors import SchemaMissing, counted, escaped
from poker_therapist.migrations.clauses import PART, plain, unquoted
from poker_therapist.migrations.effects import code, losses
from poker_therapist.migrations.order import in_order
from poker_therapist.migrations.tracking import Lost

_MOST = 1_000_000
_LONGEST, _LONGEST_SHOWN = 1_000, 100
_DROPS = re.compile(rf"(?:DROP TABLE|ALTER TABLE) ((?:{PART}\.)?({PART}))(?: DROP COLUMN ({PART}))?;")


class Counted(NamedTuple):
    """What would be lost, in words, and how many that are; 0 if that is not counted."""

    words: str
    many: float = 0


# What a non-transactional script may do unseen: calls, and names that are not read here.
_UNKNOWN = re.compile(
    r"(?:EXECUTE|EXPLAIN|DO)\b|PRAGMA writable_schema\b|SET (?:LOCAL |SESSION )?search_path\b|.*\bU&\""
    r"|(?:DROP|DELETE|UPDATE|ALTER)\b(?:.*\b(?:TABLE|FROM|COLUMN|EXISTS))? ?''"
    r"|(?:SELECT|WITH|VALUES|UPDATE|DELETE)\b.*?(?!\b(?:count|min|max|sum|avg|coalesce|IN|EXISTS|AS|FROM|AND|OR"
    r"|NOT|WHERE|VALUES|ANY|ALL|ON|SET|USING|SELECT|UNION|JOIN)\b)(?:\b\w+|\") ?\(",
    re.I,
)


def described_loss(backend: Any, migrations: Sequence[Any]) -> str:
    """Return what rolling some migrations back, one after the other, would lose now; empty if nothing."""
    return ", ".join(one.words for one in found_losses(backend, migrations).values())


def found_losses(backend: Any, migrations: Sequence[Any]) -> dict[tuple[str, str], Counted]:
    """Return the same, by table and column."""
    found: dict[tuple[str, str], Counted] = {}
    with backend.translating_errors(), backend.migration_names():
        before = _statements(_rolled_back_before(backend, migrations))
        statements = [*before, *_statements(migrations)]
        was_lost = {one[:3] for one in losses(before)}
        # Of all there is: how its name is written, if a schema need not be.
        written = {
            (plain(drops[2]), plain(drops[3] or "")): (drops[1], drops[3] or "")
            for drops in map(_DROPS.fullmatch, backend.present().values())
            if drops
        }
        alone = [one for one in migrations if not one.is_transactional("rollback")]
        texts = (code(each.text)[:_LONGEST] for one in alone for each in one.statements("rollback"))
        unknown = [Lost(other=text.rstrip(" ;")) for text in texts if _UNKNOWN.match(text)]
        # What is lost completely is reported once.
        read = (one for one in losses(statements) if one[:3] not in was_lost)
        for lost in sorted((*read, *unknown), key=lambda one: (one.column != "", one.is_part)):
            if lost.other:
                words = f"whatever `{escaped(lost.other[:_LONGEST_SHOWN])}` deletes (not counted)"
                found[lost.other, ""] = Counted(words)
            for table, column in _places(backend, lost, written):
                if found.keys().isdisjoint({(table, column), (table, "")}):
                    found |= _counted(backend, table, column, is_part=lost.is_part)
    return found


def _statements(migrations: Iterable[Any]) -> list[Any]:
    return [one for migration in migrations for one in migration.statements("rollback")]


def _rolled_back_before(backend: Any, migrations: Iterable[Any]) -> list[Any]:
    """Return what was rolled back last, before some migrations, which need not keep what it restored.

    So a run that was killed between two rollbacks continues as before.
    """
    if backend.log_table not in backend.list_tables():
        return []
    last = {name: operation for _, operation, name, *_ in backend.query("logged")}
    others = backend.applied().keys() | backend.interrupted() | {one.id for one in migrations}
    return [
        one
        for one in reversed(in_order(backend._known))
        if last.get(one.id) == "rollback" and one.id not in others and one.rollback_sql is not None
    ]


def _places(
    backend: Any, lost: Lost, written: Mapping[tuple[str, str], tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    """Yield the tables and columns that are meant, as SQL."""
    if lost.schema:
        names = backend.query("tables_of_schema", (unquoted(lost.schema),))
        yield from (
            (".".join(map(backend.quote_identifier, (unquoted(lost.schema), *name))), "") for name in names
        )
    parts = re.findall(PART, lost.table)
    if not parts:
        return
    name = plain(parts[-1])
    columns = [one for table, one in written if table == name and one] if lost.kept else [lost.column]
    for column in columns:
        if lost.kept and lost.kept.keeps_first(column):
            continue
        if parts[1:]:
            quoted = map(backend.quote_identifier, map(unquoted, parts))
            yield ".".join(quoted), column and str(backend.quote_identifier(column))
        elif place := written.get((name, column)):
            yield place


def _counted(backend: Any, table: str, column: str, *, is_part: bool) -> dict[tuple[str, str], Counted]:
    """Return how many rows or values there are, by what they are; nothing if there are none."""
    condition = f"WHERE counted.{column} IS NOT NULL " if column else ""
    # To count more would take too long for a confirmation.
    sql = f"SELECT count(*) FROM (SELECT 1 FROM {table} AS counted {condition}LIMIT {_MOST}) AS those"
    try:
        with backend.translating_errors():
            ((count,),) = backend.connection.execute(sql).fetchall()
    except SchemaMissing:  # a table that does not exist
        return {}
    name = ".".join(map(unquoted, re.findall(PART, f"{table}.{column}" if column else table)))
    many = counted(count, "value" if column else "row").replace(" ", " or more " if count == _MOST else " ")
    words = f"{many} of {escaped(name)}{' at most' if is_part else ''}"
    return {(table, column): Counted(words, inf if count == _MOST else count)} if count else {}
