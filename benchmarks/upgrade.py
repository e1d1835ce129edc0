"""Taking over an old database of many rows, and moving one to the other engine.

Each upgrade is a process of its own, which shows its memory: `python -m benchmarks.upgrade ours FILE`.
"""

import json
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from benchmarks import arms_postgresql, arms_sqlite
from benchmarks.against_rivals import folder_for
from benchmarks.growth import big_server
from benchmarks.measure import Plan, WrongAnswer, in_turn, median_ratio, ratio, rotated, summary
from poker_therapist import schema
from poker_therapist.location import locate
from poker_therapist.schema import migrations_folder
from poker_therapist.storage import get_pattern_storage
from tests.helpers import old_app

# A tenth of the texts were written as they are, which 002 has to quote; times have the earlier app's forms.
_OLD_ROWS = """
WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {0} - 1)
INSERT INTO {1}
SELECT {2} FROM numbers
"""
_USERS = """
WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {0})
INSERT OR IGNORE INTO users (id) SELECT n FROM numbers
"""
_TEXT = (
    "CASE WHEN n % 10 = 0 THEN 'plays tight on the river' "
    "ELSE '{\"bets_up\": 1.8, \"number\": ' || n || '}' END"
)
_TIME = (
    "CASE WHEN n % 3 = 0 THEN '2026-01-05 18:12:01' "
    "ELSE printf('2026-01-05T18:%02d:%02d.123456+00:00', n / 60 % 60, n % 60) END"
)
PGLOADER = "pgloader"
_PGLOADER = """
LOAD DATABASE FROM sqlite://{0} INTO {1} WITH data only
INCLUDING ONLY TABLE NAMES LIKE 'user_patterns', 'conversation_context', 'user_insights', 'legacy_rows';
"""
_COLUMNS = {
    "user_patterns": f"n + 1, n / 100, 'tilt', 'key ' || (n % 100), {_TEXT}, 0.5, {_TIME}, {_TIME}",
    "conversation_context": f"n + 1, n / 100, 'topic', {_TEXT}, 'monday', {_TIME}, NULL",
    "user_insights": f"n + 1, n / 100, 'leak', {_TEXT}, 0.5, {_TIME}",
}


def make_old(path: Path, rows: int, *, with_users: bool = True) -> None:
    """Make a database of the earlier app, with so many rows in all, half of them context.

    The app asked for a row of `users` to each, and SQLite did not: there may be none.
    """
    old_app.make(path, rows=0)
    with closing(sqlite3.connect(path)) as connection, connection:
        if with_users:
            connection.execute(_USERS.format(rows // 100 + 1))
        for table, share in (("user_patterns", 3), ("conversation_context", 5), ("user_insights", 2)):
            connection.execute(_OLD_ROWS.format(rows * share // 10, table, _COLUMNS[table]))


def upgrade_ours(path: Path) -> None:
    """Open it, as the app does: a backup, four migrations, their record, the checks."""
    get_pattern_storage(path).close()


def upgrade_raw(path: Path) -> None:
    """Run the same statements, each file in a transaction."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for file in sorted(migrations_folder("sqlite").glob("*.sql")):
            if not file.name.endswith(".rollback.sql"):
                connection.executescript(f"BEGIN IMMEDIATE; {file.read_text(encoding='utf-8')}; COMMIT;")


def rehearse(path: Path) -> None:
    """Rehearse what is pending, which is everything."""
    if not schema.rehearse(locate(str(path))).is_safe:
        raise WrongAnswer("a migration cannot be rehearsed")


def read_status(path: Path) -> None:
    """Say where the database stands, its schema included."""
    if schema.read_status(locate(str(path))).is_trouble:
        raise WrongAnswer("the upgraded database is not as its migrations build it")


def peak_memory() -> int:
    """Return the most bytes that this process has had in memory."""
    status = Path("/proc/self/status")
    if status.exists():  # the other number counts what the parent had when it started this process
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii"))
        if found:
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


UPGRADES: dict[str, Callable[[Path], None]] = {"ours": upgrade_ours, "raw": upgrade_raw}
WORKS = {**UPGRADES, "rehearse": rehearse, "status": read_status}


def _run(name: str, path: Path) -> tuple[float, int]:
    """Upgrade in a process of its own; return the seconds and the bytes that it took."""
    command = [sys.executable, "-m", "benchmarks.upgrade", name, str(path)]
    printed = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    ).stdout
    taken, peak = json.loads(printed)
    return taken, peak


def timed(name: str, path: Path) -> tuple[float, int]:
    """Upgrade in this process; return the seconds that it took and the most bytes that the process had."""
    start = time.perf_counter()
    WORKS[name](path)
    return time.perf_counter() - start, peak_memory()


def _rows(execute: Callable[[str], Any]) -> list[tuple[int, ...]]:
    """Return what is the same in two databases that hold the same, of whichever engine."""
    return [
        execute(f"SELECT count(*), sum(id), sum(length(CAST({column} AS text))) FROM {table}").fetchone()
        for table, column in (
            ("user_patterns", "pattern_value"),
            ("conversation_context", "context_value"),
            ("user_insights", "insight_data"),
        )
    ]


def _rows_of_file(path: Path) -> list[tuple[int, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return _rows(connection.execute)


def upgrade(plan: Plan) -> dict[str, Any]:
    """Measure the upgrade of a small and of a big old database."""
    few, many = plan.pick((10_000, 1_000_000), (1_000, 10_000))
    cases = {"few": (few, True), "many": (many, True), "without users": (many, False)}
    times: dict[str, dict[str, list[float]]] = {}
    peaks: dict[str, dict[str, list[float]]] = {}
    with folder_for(plan, "upgrade") as folder:
        for case, (rows, with_users) in cases.items():
            old = folder / "old.db"
            make_old(old, rows, with_users=with_users)
            for repetition in range(plan.repetitions):
                for name in rotated(list(UPGRADES), repetition):
                    path = folder / f"{name}.db"
                    shutil.copy(old, path)
                    taken, peak = _run(name, path)
                    times.setdefault(case, {}).setdefault(name, []).append(taken)
                    peaks.setdefault(case, {}).setdefault(name, []).append(peak)
                if _rows_of_file(folder / "ours.db") != _rows_of_file(folder / "raw.db"):
                    raise WrongAnswer("the upgrades do not agree")
                for path in [*folder.glob("ours.db*"), *folder.glob("raw.db*")]:
                    path.unlink()
            old.unlink()
    return {
        "rows": many,
        "time_by_raw": ratio(times["many"]["ours"], times["many"]["raw"]),
        "time_by_raw_without_users": ratio(times["without users"]["ours"], times["without users"]["raw"]),
        "memory_by_few_rows": ratio(peaks["many"]["ours"], peaks["few"]["ours"]),
        "memory_by_raw": median_ratio(peaks["many"]["ours"], peaks["many"]["raw"]),
        "few_rows": few,
    }


def rehearsal(plan: Plan) -> dict[str, Any]:
    """Measure a rehearsal beside applying, and what `status` takes with few rows and with many."""
    few, many = plan.pick((10_000, 1_000_000), (1_000, 10_000))
    times: dict[str, list[float]] = {}
    with folder_for(plan, "rehearsal") as folder:
        old, path, small = folder / "old.db", folder / "ours.db", folder / "small.db"
        make_old(old, many)
        make_old(small, few)
        upgrade_ours(small)
        for repetition in range(plan.repetitions):
            shutil.copy(old, path)
            for name in rotated(["rehearse", "raw"], repetition):
                one = folder / f"{name}.db"
                shutil.copy(old, one)
                times.setdefault(name, []).append(_run(name, one)[0])
                for left in folder.glob(f"{name}.db*"):
                    left.unlink()
            times.setdefault("apply", []).append(_run("ours", path)[0])
            for name, upgraded in (("status", path), ("status of few", small)):
                times.setdefault(name, []).append(_run("status", upgraded)[0])
            sizes = {"after": _vacuumed(path)}
            for left in folder.glob("ours.db*"):
                left.unlink()
        shutil.copy(old, path)
        arms_sqlite.migrate_before(locate(f"sqlite:///{path}?backups=0"))
        sizes["before"] = _vacuumed(path)
    return {
        "rows": many,
        "few_rows": few,
        "time_by_raw": ratio(times["rehearse"], times["raw"]),
        "time_by_apply": ratio(times["rehearse"], times["apply"]),
        "status_seconds": summary(times["status"]),
        "status_by_few_rows": ratio(times["status"], times["status of few"]),
        "file_by_before": round(sizes["after"] / sizes["before"], 2),
        "bytes": sizes,
    }


def _vacuumed(path: Path) -> int:
    """Return the size of a database without free pages, in bytes."""
    copied = path.with_suffix(".vacuumed")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM INTO ?", [str(copied)])
    size = copied.stat().st_size
    copied.unlink()
    return size


def copy_raw(source: Path, url: str) -> None:
    """Read from the one and COPY into the other, in one transaction; nothing is compared."""
    with (
        closing(sqlite3.connect(source)) as reading,
        psycopg.connect(url) as writing,
        writing.cursor() as cursor,
    ):
        for table in ("user_patterns", "conversation_context", "user_insights", "legacy_rows"):
            rows = reading.execute(f"SELECT * FROM {table}")
            columns = ", ".join(column[0] for column in rows.description)
            with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copying:
                for row in rows:
                    copying.write_row(row)


def copy_by_pgloader(source: Path, url: str) -> None:
    """Let pgloader copy the rows into the tables that are there; it compares nothing, either."""
    given = psycopg.conninfo.conninfo_to_dict(url)
    host, password = str(given.get("host", "localhost")), given.get("password")
    who = f"{given.get('user', 'postgres')}{f':{password}' if password else ''}"
    where = f"{'unix:' if host.startswith('/') else ''}{host}:{given.get('port', 5432)}"
    target = f"pgsql://{who}@{where}/{given['dbname']}"
    commands = source.with_suffix(".load")
    commands.write_text(_PGLOADER.format(source.name, target), encoding="utf-8")
    # From its folder, whose name may hold blanks, which pgloader does not read.
    command = [PGLOADER, "--quiet", commands.name]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=source.parent)


def copy(plan: Plan) -> dict[str, Any]:
    """Measure the copy of an SQLite database to PostgreSQL, beside COPY alone and pgloader if it is there."""
    from poker_therapist.schema import copy as copy_ours

    count = plan.pick(1_000_000, 2_000)
    with folder_for(plan, "copy") as folder, big_server() as databases:
        source = folder / "RexVoice.db"
        make_old(source, count)
        upgrade_ours(source)
        rows = _rows_of_file(source)
        migrated = databases.template(arms_postgresql.migrate)

        def work(arm: Callable[[str], object]) -> Callable[[], None]:
            def run() -> None:
                with databases.fresh(migrated) as url:
                    arm(url)
                    with closing(psycopg.connect(url)) as connection:
                        if _rows(connection.execute) != rows:
                            raise WrongAnswer("not all rows have arrived as they were")

            return run

        arms = {
            "ours": work(lambda url: copy_ours(locate(str(source)), locate(url))),
            "raw": work(lambda url: copy_raw(source, url)),
        }
        if shutil.which(PGLOADER):
            arms[PGLOADER] = work(lambda url: copy_by_pgloader(source, url))
        times = in_turn(arms, plan.repetitions)
    return {
        "rows": count,
        "time_by": {name: ratio(times["ours"], taken) for name, taken in times.items() if name != "ours"},
        "pgloader": _version_of_pgloader() if PGLOADER in arms else None,
    }


def _version_of_pgloader() -> str:
    printed = subprocess.run([PGLOADER, "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout
    found = re.search(r"[0-9][\w.~+-]*", printed)
    return found[0] if found else "of an unknown version"


PARTS = {"upgrade": upgrade, "rehearsal": rehearsal, "copy": copy}

if __name__ == "__main__":
    print(json.dumps(timed(sys.argv[1], Path(sys.argv[2]))))
