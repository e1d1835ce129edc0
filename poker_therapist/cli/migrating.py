"""Commands about migrations: what has been applied, what would be, and doing it."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from poker_therapist import schema
from poker_therapist.cli import screen
from poker_therapist.cli.options import (
    PENDING,
    TROUBLE,
    AsJson,
    Config,
    Database,
    NoConfig,
    Sources,
    Yes,
    choose,
    choose_migrations,
    ini_file,
)
from poker_therapist.engines import engine_for
from poker_therapist.location import command_about


def status(
    database: Database = None,
    *,
    config: Config = None,
    no_config: NoConfig = False,
    sources: Sources = None,
    as_json: AsJson = False,
) -> None:
    """Say where a database stands: each migration, and whether its schema is what they build.

    Nothing is written. Exit code 0: up to date; 3: migrations are pending, or under way; 4: trouble.
    """
    _, location, folders = choose_migrations(database, config, no_config, sources)
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
    raise typer.Exit(code)


def rehearse(
    database: Database = None,
    *,
    config: Config = None,
    no_config: NoConfig = False,
    sources: Sources = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="ID", help="The last migration to try.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try the pending migrations on a copy of this database: apply, roll back, apply again.

    The database itself is not written to. The verdict on each: exact (going back gives every byte of schema
    and rows), schema-exact (the same schema and rows, some values differ), adopted (it found tables that no
    migration made: it goes back by backup), or irreversible.
    Exit code 0: each works and none is irreversible; 4: not so.
    """
    _, location, folders = choose_migrations(database, config, no_config, sources)
    with screen.progress() as progress:
        found = schema.rehearse(location, to=to, sources=folders, progress=progress)
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
                    }
                    for one in found.migrations
                ],
            }
        )
    else:
        screen.print_rehearsal(location, found)
    raise typer.Exit(0 if found.is_safe else TROUBLE)


def apply(
    database: Database = None,
    *,
    config: Config = None,
    no_config: NoConfig = False,
    sources: Sources = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="ID",
            help="This one alone and what it depends on, as REVISION with yoyo.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Apply the pending migrations, each whole or not at all. An SQLite file is made if there is none."""
    from poker_therapist.migrations import run

    chosen = choose_migrations(database, config, no_config, sources, changes=True)
    folders = schema.sources_for(chosen.location, chosen.sources)
    done = run.apply(engine_for(chosen.location), folders, to=to, say=_quiet if as_json else screen.say)
    if as_json:
        _print_done(chosen.location.name, "applied", done.seconds, done.backup)


def rollback(
    database: Database = None,
    *,
    config: Config = None,
    no_config: NoConfig = False,
    sources: Sources = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="ID",
            help="This one and all that was applied after it. Unless given: the last applied.",
            show_default=False,
        ),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Roll back the migration that was applied last, or back to before another.

    Where that would delete rows it asks, or wants --yes where nobody can be asked.
    """
    from poker_therapist.migrations import loss, run

    chosen = choose_migrations(database, config, no_config, sources, changes=True)

    def allow_loss(rows: dict[str, int], last: str) -> None:
        if not sys.stdin.isatty():
            call = command_about(chosen.location, "rollback", "--to", last, "--yes")
            raise loss.refusal(rows, [f"run `{call}`"])
        typer.confirm(f"This deletes {loss.described(rows)}. Go on?", abort=True, err=True)

    folders = schema.sources_for(chosen.location, chosen.sources)
    say = _quiet if as_json else screen.say
    done = run.roll_back(
        engine_for(chosen.location), folders, to=to, allow_loss=None if yes else allow_loss, say=say
    )
    if as_json:
        _print_done(chosen.location.name, "rolled_back", done.seconds, done.backup)


def list_(
    database: Database = None,
    *,
    config: Config = None,
    no_config: NoConfig = False,
    sources: Sources = None,
    as_json: AsJson = False,
) -> None:
    """List the migrations, applied (A), unapplied (U) or interrupted (I), and where their files are."""
    from poker_therapist.migrations import run

    chosen = choose_migrations(database, config, no_config, sources)
    with engine_for(chosen.location).backend() as backend:
        found = run.listed(backend, schema.sources_for(chosen.location, chosen.sources))
    if as_json:
        rows = [{"id": one.id, "status": status, "source": one.source_dir} for one, status in found]
        screen.print_json({"database": chosen.location.name, "migrations": rows})
        return
    rows_shown = [(one.id, status, one.source_dir) for one, status in found]
    screen.print_rows(("migration", "status", "source"), rows_shown)


def log(
    database: Database = None,
    *,
    config: Config = None,
    no_config: NoConfig = False,
    as_json: AsJson = False,
) -> None:
    """Say who has applied, rolled back, marked or unmarked what, when and where, and what failed."""
    from poker_therapist.migrations.log import read_log

    location = choose(database, config, no_config).location
    with engine_for(location).backend() as backend:
        entries = read_log(backend)
    if as_json:
        screen.print_json({"database": location.name, "log": [asdict(one) for one in entries]})
        return
    rows = [
        (one.migration, one.outcome, one.operation, (one.at or "")[:19], f"{one.user}@{one.host}", one.place)
        for one in entries
    ]
    screen.print_rows(("migration", "outcome", "operation", "at (UTC)", "by", "place"), rows)


def new(
    description: Annotated[
        str, typer.Argument(help='What it does, verb first: "add session mood".', show_default=False)
    ],
    config: Config = None,
    no_config: NoConfig = False,
) -> None:
    """Write the empty files of the next migration: a pair for each engine, numbered and linked."""
    from poker_therapist.migrations.scaffold import new_migration

    ini = ini_file(config, no_config)
    folder = ini.absolute().parent if ini else Path.cwd()
    for path in new_migration(description, folder / "sql_migrations"):
        screen.say(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def _quiet(_line: str) -> None:
    """Say nothing: what was done is printed as JSON at the end."""


def _print_done(database: str, word: str, seconds: dict[str, float], backup: str) -> None:
    done = [{"id": name, "seconds": round(took, 3)} for name, took in seconds.items()]
    screen.print_json({"database": database, word: done, "backup": backup or None})
