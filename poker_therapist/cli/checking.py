"""Commands about files of migrations before they are run: what is wrong with them, and what they would do."""

import glob
import io
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from poker_therapist import schema
from poker_therapist.cli import screen
from poker_therapist.engines import dialect_of, engine_for
from poker_therapist.errors import InvalidInput, escaped
from poker_therapist.location import PostgreSQLLocation, locate
from poker_therapist.migrations import check as checks
from poker_therapist.migrations.files import shown
from poker_therapist.migrations.plan import PlannedMigration
from poker_therapist.migrations.plan import plan as make_plan
from poker_therapist.migrations.script import script as write_script
from poker_therapist.migrations.yoyo_command import find_ini, ini_value
from poker_therapist.new_files import new_file

TROUBLE = 4

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="The ini file, instead of yoyo.ini.", show_default=False
    ),
]
NoConfig = Annotated[bool, typer.Option("--no-config", help="Look for no ini file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for a program.")]


def check(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FOLDER...",
            help="Folders of migrations. Unless given: what the ini file names, else those that come with "
            "this version. With one of sqlite, postgresql and citus goes what lies beside it of the others.",
            show_default=False,
        ),
    ] = None,
    *,
    config: Config = None,
    no_config: NoConfig = False,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="REF",
            help="A commit, tag or branch of git; what was there then may not be edited.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say all that is wrong with the files of migrations; no database is needed. For a hook, and for CI.

    Exit code 0: nothing, but for notes; 4: something.
    """
    ini = None if no_config else config or find_ini()
    chosen = folders or _folders(ini, is_given=config is not None)
    named = ini_value(ini.absolute(), "database", is_given=config is not None) if ini else None
    location = locate(named or "RexVoice.db")
    with_twins = dict.fromkeys(chosen)
    for folder in chosen:
        if folder.absolute().name in checks.TWINS:
            beside = (folder.absolute().with_name(name) for name in (*checks.TWINS, *checks.OPTIONAL))
            with_twins |= dict.fromkeys(one for one in beside if one.is_dir())
    judged = list({one.resolve(): one for one in with_twins}.values())
    found = checks.check(judged, lambda folder: dialect_of(folder.name, location), since=since)
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
            screen.say(f"nothing is wrong with {', '.join(shown(one) for one in judged)}")
    raise typer.Exit(TROUBLE if is_wrong else 0)


def plan(
    database: Annotated[
        str | None,
        typer.Option("--database", "-d", metavar="PATH|URL", help="The database.", show_default=False),
    ] = None,
    *,
    config: Config = None,
    no_config: NoConfig = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="What rollback would run.")] = False,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="This one and what it depends on; with --rollback, what was applied after it.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    script: Annotated[
        bool, typer.Option("--script", help="Print one SQL file, for sqlite3 or psql, that does all of it.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A new file for the script.", show_default=False),
    ] = None,
) -> None:
    """Show what apply or rollback would run on a database, and what each statement does; nothing is written.

    What a statement does to data, and on PostgreSQL which table it locks, its text alone says.
    """
    if output is not None and not script:
        raise typer.BadParameter("--output goes with --script")
    if script and as_json:
        raise typer.BadParameter("--json does not go with --script")
    ini = None if no_config else config or find_ini()
    named = ini_value(ini.absolute(), "database", is_given=config is not None) if ini else None
    location = locate(named or "RexVoice.db" if database is None else database)
    if database is None and named and isinstance(location, PostgreSQLLocation):
        print(escaped(f"database: {location.described} (named by {ini})"), file=sys.stderr)
    sources = [str(one) for one in _folders(ini, is_given=config is not None)]
    if all(Path(one).resolve().parent == schema.migrations_folder("").resolve() for one in sources):
        sources = schema.sources_for(location)
    engine = engine_for(location)
    with engine.backend() as backend:
        planned = make_plan(engine, backend, sources, direction="rollback" if rollback else "apply", to=to)
        text = write_script(engine.script(backend), planned) if script else ""
    if output is not None:
        with new_file(output) as (_, descriptor), open(descriptor, "wb", closefd=False) as file:
            file.write(text.encode())
    elif script:
        if isinstance(sys.stdout, io.TextIOWrapper):  # texts that are kept, to the letter
            sys.stdout.reconfigure(encoding="utf-8", newline="\n")
        print(text, end="")
    elif as_json:
        screen.print_json({"database": location.name, "migrations": [_in_json(one) for one in planned]})
    else:
        screen.print_plan(location, planned)


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


def _folders(ini: Path | None, *, is_given: bool) -> list[Path]:
    """Return the folders that an ini file names, else those that come with this version."""
    named = (ini_value(ini.absolute(), "sources", is_given=is_given) or "").strip() if ini else ""
    if not named:
        return [schema.migrations_folder(name) for name in checks.TWINS]
    if Path(named).is_dir():  # yoyo would split the name of a folder at its blanks
        return [Path(named)]
    found = [Path(path) for one in named.split() for path in sorted(glob.glob(one))]  # noqa: PTH207  # as yoyo does
    if not found:
        raise InvalidInput(f"there is no folder {named}: correct `sources` in {ini}")
    return found
