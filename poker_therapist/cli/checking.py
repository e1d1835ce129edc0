"""Commands about migration files before they are run: their problems, and their effects."""

import io
import sys
from pathlib import Path
from typing import Any

import click

from poker_therapist import schema
from poker_therapist.cli import screen
from poker_therapist.cli.options import (
    TROUBLE,
    Command,
    FilePath,
    Where,
    as_json,
    folders_named,
    sources_of,
    takes_migrations,
    takes_sources,
)
from poker_therapist.engines import dialect_of, engine_for
from poker_therapist.location import locate
from poker_therapist.migrations import check as checks
from poker_therapist.migrations.files import shown
from poker_therapist.migrations.ini import ini_value
from poker_therapist.migrations.plan import PlannedMigration
from poker_therapist.migrations.plan import plan as make_plan
from poker_therapist.migrations.scaffold import OPTIONAL, TWINS, with_twins
from poker_therapist.migrations.script import script as write_script
from poker_therapist.new_files import new_file


@click.command(
    cls=Command,
    example="poker-therapist check",
    codes={0: "no problems, or only notes", 4: "at least one problem"},
)
@takes_sources
@click.argument("folders", nargs=-1, type=FilePath)
@click.option(
    "--since", metavar="REF", help="A git commit, tag or branch. Files that exist there must be unchanged."
)
@as_json
def check(where: Where, folders: tuple[Path, ...], *, since: str | None, as_json: bool) -> int:
    """Check migration files without a database.

    For commit hooks and CI. FOLDERS are folders of migrations, as for --sources. The default is the `sources`
    of the ini file, or else the folders of this version. A folder named sqlite, postgresql or citus is
    checked together with the others beside it.
    """
    ini = where.ini()
    sources = sources_of(ini, is_given=where.config is not None) if ini else []
    given = [*folders, *(folders_named(where.sources, "--sources") if where.sources else [])]
    chosen = given or [schema.migrations_folder(name) for name in TWINS]
    if sources and not given:
        chosen = folders_named(sources, f"`sources` in {ini}")
    named = ini_value(ini.absolute(), "database", is_given=where.config is not None) if ini else None
    location = locate(named or "RexVoice.db")
    own = next((one.name for one in chosen if one.name in TWINS), "")
    own = own or (location.folders[0] if named else "")
    judged = list({one.resolve(): one for one in with_twins(chosen, optional=True)}.values())

    def dialects(folder: Path) -> list[checks.Dialect]:
        is_named = folder.name in (*TWINS, *OPTIONAL)
        return [
            dialect_of(name, location) for name in ([folder.name] if is_named else [own] if own else TWINS)
        ]

    found = checks.check(judged, dialects, own=own, since=since)
    is_wrong = any(not one.is_note for one in found)
    if as_json:
        findings = [
            {"file": one.file, "line": one.line or None, "problem": one.problem, "note": one.is_note}
            for one in found
        ]
        screen.print_json({"folders": [str(one) for one in judged], "ok": not is_wrong, "findings": findings})
    else:
        for one in found:
            screen.say(str(one))
        if not is_wrong:
            screen.say(f"no problems in {', '.join(shown(one) for one in judged)}")
    return TROUBLE if is_wrong else 0


@click.command(cls=Command, example="poker-therapist plan --database RexVoice.db")
@takes_migrations
@click.option("--rollback", is_flag=True, help="Show what rollback would run.")
@click.option(
    "--to",
    metavar="ID",
    help="Only this migration and its dependencies; with --rollback, it and all that were applied after it.",
)
@as_json
@click.option("--script", is_flag=True, help="Print the plan as one SQL script for sqlite3 or psql.")
@click.option("--output", "-o", type=FilePath, metavar="FILE", help="Write the script to this new file.")
def plan(
    where: Where, *, rollback: bool, to: str | None, as_json: bool, script: bool, output: Path | None
) -> None:
    """Show what apply or rollback would run.

    It prints each statement with its file, its line and its effect on data; on PostgreSQL also the locks that
    it takes. The plan is derived from the SQL text: nothing is run or written.
    """
    if output is not None and not script:
        raise click.UsageError("--output requires --script")
    if script and as_json:
        raise click.UsageError("--json cannot be used with --script")
    location, given = where.migrations()
    engine = engine_for(location)
    with engine.backend() as backend:
        sources = schema.sources_for(location, given, backend)
        planned = make_plan(engine, backend, sources, direction="rollback" if rollback else "apply", to=to)
        name = str(output.absolute() if output else "plan.sql")
        text = write_script(engine.script(backend), planned, name) if script else ""
        exists = backend.exists()
    if output is not None:
        with new_file(output) as (_, descriptor), open(descriptor, "wb", closefd=False) as file:
            file.write(text.encode())
    elif script:
        if isinstance(sys.stdout, io.TextIOWrapper):  # the stored texts, unchanged
            sys.stdout.reconfigure(encoding="utf-8", newline="\n")
        print(text, end="")
    elif as_json:
        migrations = [_in_json(one) for one in planned]
        screen.print_json({"database": location.name, "exists": exists, "migrations": migrations})
    else:
        screen.print_plan(location, planned)
        screen.tell_if_missing(location, exists=exists)


def _in_json(one: PlannedMigration) -> dict[str, Any]:
    return {
        "id": one.migration.id,
        "direction": one.direction,
        "file": one.file,
        "transactional": one.is_transactional,
        "found": list(one.found),
        "statements": [
            {
                "line": each.statement.line,
                "sql": each.statement.text,
                "effects": each.effects,
                "locks": [lock._asdict() for lock in each.locks],
            }
            for each in one.statements
        ],
    }
