"""A database file that comes from elsewhere is data: no text in it reaches beyond it, and all ends."""

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from yoyo.migrations import get_migration_hash

from poker_therapist import get_pattern_storage, schema
from poker_therapist.errors import MigrationFailed
from poker_therapist.location import SQLiteLocation
from poker_therapist.sqlite import backend, catalog, connect
from poker_therapist.sqlite.connect import Watch
from tests.helpers.cli import command, refused
from tests.helpers.engines import query, run_sql
from tests.helpers.migrating import FOLDER, IDS
from tests.helpers.postgresql import LOSES_ROWS, in_child, yoyo_in_child
from tests.helpers.project import Project
from tests.helpers.rehearsals import rehearsed

KNOWN, UNKNOWN = IDS[0], "999_from_elsewhere"
_NUMBERS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"
_NESTED = "".join(f"CREATE VIEW v{n} AS SELECT a.x FROM v{n - 1} a, v{n - 1} b; " for n in range(1, 15))

# Texts of a migration, and why `status` does not try them. VICTIM is another database, NEW no file yet.
REFUSED = {
    "ATTACH 'VICTIM' AS v; DELETE FROM v.hands;": "it attaches another database",
    "/* */ attach/**/database 'VICTIM' AS v; DROP TABLE v.hands;": "it attaches another database",
    "ATTACH 'VIC' || 'TIM' AS v; DROP TABLE v.hands;": "it attaches another database",
    "ATTACH 'file:NEW?mode=rwc' AS v; CREATE TABLE v.a (b);": "it attaches another database",
    "CREATE TABLE a (b); ATTACH 'NEW' AS v; CREATE TABLE v.a AS SELECT 'x';": "it attaches another database",
    "DETACH main;": "it attaches another database",
    "VACUUM INTO 'NEW';": "it attaches another database",
    "VACUUM/**/main -- here\n INTO 'NEW';": "it attaches another database",
    "CREATE TABLE a AS SELECT load_extension('NEW');": "it calls load_extension()",
    "CREATE TABLE a AS SELECT fts3_tokenizer('simple') AS b;": "it calls fts3_tokenizer()",
    "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = '';": "it sets PRAGMA writable_schema",
    "PRAGMA hard_heap_limit = 1;": "it sets PRAGMA hard_heap_limit",
    "PRAGMA temp_store_directory = 'NEW';": "it sets PRAGMA temp_store_directory",
    "PRAGMA main.schema_version = 1;": "it sets PRAGMA schema_version",
    "CREATE VIRTUAL TABLE a USING dbstat;": "it creates a virtual table with dbstat",
    "CREATE TABLE a AS SELECT zeroblob(900000000) AS b;": "it is too large",
    f"CREATE TABLE a AS {_NUMBERS} SELECT zeroblob(900000) AS b FROM n;": "it is too large",
    f"CREATE TEMP TABLE a AS {_NUMBERS} SELECT zeroblob(900000) AS b FROM n;": "it is too large",
    f"CREATE TABLE a AS {_NUMBERS} SELECT count(*) AS b FROM n;": "it takes too long",
    f"CREATE TABLE a AS {_NUMBERS} SELECT randomblob(9000) AS b FROM n ORDER BY b;": "it takes too long",
    f"CREATE VIEW v0 AS SELECT 1 AS x; {_NESTED} CREATE TABLE a AS SELECT * FROM v12;": "cannot be checked",
    "".join(f"CREATE TABLE a{n} (b); " for n in range(20_000)): "it takes too long",
    "-- " + "x" * 2_000_000: "has 2,000,003 characters",
}  # fmt: skip

# Texts that are no more than rows: they are not run, so that they change nothing and end.
PASSED_OVER = [
    f"{_NUMBERS} SELECT count(*) FROM n;",
    f"CREATE TABLE a (b); INSERT INTO a {_NUMBERS} SELECT x FROM n;",
    "EXPLAIN ATTACH 'NEW' AS v;",
    (
        "CREATE TABLE a (b); CREATE TRIGGER c AFTER INSERT ON a BEGIN INSERT INTO a VALUES (1); END; "
        "INSERT INTO a VALUES (1);"
    ),
    "\n" * 400_000,
    " " * 5_000_000,
    "-- depends:" * 100_000,
    "-- x\n" * 500_000,
]


class Victim:
    """Another database, and a file that is not there."""

    def __init__(self, folder: Path) -> None:
        self.path, self.new = folder / "VICTIM", folder / "NEW"
        run_sql(self.path, "CREATE TABLE hands (id); INSERT INTO hands VALUES (1);")
        self._content = self.path.read_bytes()

    def text(self, text: str) -> str:
        """Return a text that names the files by their paths."""
        folder = f"{self.path.parent}/"
        return text.replace("'VICTIM", f"'{folder}VICTIM").replace("'VIC'", f"'{folder}VIC'").replace(
            "NEW", str(self.new)
        )  # fmt: skip

    def is_untouched(self) -> bool:
        """Return whether nothing was written beside the database."""
        return self.path.read_bytes() == self._content and not self.new.exists()


@pytest.fixture
def victim(tmp_path: Path) -> Victim:
    return Victim(tmp_path)


@pytest.fixture
def file(tmp_path: Path, migrated_file: Path) -> Path:
    """An up-to-date database with a row in each table."""
    path = tmp_path / "elsewhere" / "RexVoice.db"
    path.parent.mkdir()
    shutil.copy(migrated_file, path)
    with get_pattern_storage(path) as storage:
        storage.save_pattern(7, "tilt", "bad_beat", 1)
        storage.save_context(7, "goal", "sleep")
        storage.save_insight(7, "leak", "calls")
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An operator's own migrations, which the commands take for those of this version."""
    own = Project(tmp_path / "project")
    monkeypatch.setattr(schema, "folders_for", lambda _location, _applied: [own.sql])
    monkeypatch.chdir(own.folder)
    own.run_sql("PRAGMA user_version = 1;")
    return own


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "_SECONDS_TO_BUILD", 0.3)


def keep(path: Path, migration: str, apply: str | bytes, rollback: str = "SELECT 1;") -> None:
    """Put a text into a file, as if a migration had been applied with it."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT OR IGNORE INTO _yoyo_migration (migration_hash, migration_id, applied_at_utc) "
            "SELECT ?, ?, applied_at_utc FROM _yoyo_migration LIMIT 1",
            (get_migration_hash(migration), migration),
        )
        connection.execute(
            "INSERT OR REPLACE INTO _migration_text SELECT '_yoyo_migration', migration_id, applied_at_utc, "
            "'x', ?, ? FROM _yoyo_migration WHERE migration_id = ?",
            (apply, rollback, migration),
        )


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("text", REFUSED, ids=[text[:50] for text in REFUSED])
def test_status_tries_no_text_that_reaches_beyond_memory_or_does_not_end(
    text: str, file: Path, victim: Victim
) -> None:
    keep(file, UNKNOWN, victim.text(text))
    ran = command("status", "-d", file, folder=file.parent)

    assert (ran.code, ran.error) == (4, "")
    assert "drift cannot be checked" in ran.out
    assert REFUSED[text] in ran.out
    assert victim.is_untouched()


@pytest.mark.parametrize("text", PASSED_OVER, ids=[text[:50] for text in PASSED_OVER])
def test_status_runs_nothing_that_changes_rows(text: str, file: Path, victim: Victim) -> None:
    keep(file, UNKNOWN, victim.text(text))
    ran = command("status", "-d", file, "--json", folder=file.parent)

    assert (ran.code, ran.error) == (4, "")
    assert ran.json["migrations"][-1]["state"] == "unknown"
    assert ("characters" if len(text) > 1_000_000 else "") in ran.json["unjudged"]
    assert len(text) > 1_000_000 or not ran.json["unjudged"]
    assert victim.is_untouched()


@pytest.mark.parametrize("text", [*list(REFUSED)[:9], *PASSED_OVER], ids=lambda text: text[:50])
def test_of_a_migration_that_this_version_ships_no_kept_text_is_run(
    text: str, file: Path, victim: Victim, tmp_path: Path
) -> None:
    """Neither by `status`, which takes its files, nor by `restore`."""
    keep(file, KNOWN, victim.text(text))
    asked = command("status", "-d", file, "--json", folder=file.parent).json

    assert (asked["unjudged"], asked["drift"]) == ("", [])
    assert [one["state"] for one in asked["migrations"]] == ["edited", *["applied"] * (len(IDS) - 1)]
    ran = command("restore", file, "-d", tmp_path / "restored.db", folder=tmp_path)
    assert (ran.code, ran.error) == (0, "")
    assert victim.is_untouched()


@pytest.mark.parametrize("text", list(REFUSED)[:9], ids=lambda text: text[:50])
def test_a_backup_with_an_unknown_text_is_refused_and_the_text_not_run(
    text: str, file: Path, victim: Victim, tmp_path: Path
) -> None:
    keep(file, UNKNOWN, victim.text(text))

    assert UNKNOWN in refused("restore", file, "-d", tmp_path / "restored.db", folder=tmp_path)
    assert victim.is_untouched()


@pytest.mark.parametrize("text", list(REFUSED)[:14], ids=lambda text: text[:50])
def test_a_kept_rollback_reaches_nothing_beyond_its_database(text: str, file: Path, victim: Victim) -> None:
    keep(
        file,
        UNKNOWN,
        "CREATE TABLE moods (id);",
        f"DELETE FROM user_insights WHERE id > 0; {victim.text(text)}",
    )
    if "VACUUM" in text or "DETACH" in text:  # refused by SQLite itself, inside a transaction
        keep(file, UNKNOWN, "-- transactional: false\nCREATE TABLE moods (id);", victim.text(text))
    before = query(file, "SELECT * FROM user_insights")
    arguments = ("--config", LOSES_ROWS, "--batch", "--database", f"sqlite+atomic:///{file}", FOLDER)
    ran = yoyo_in_child("rollback", "--revision", UNKNOWN, *arguments, folder=file.parent)

    assert ran.code == 1
    assert f"{UNKNOWN} has no file here: the rollback script in the database is run" in ran.out
    assert f"cannot be run from the database (restore its files first): {REFUSED[text]}" in ran.error
    assert "Traceback" not in ran.error
    assert victim.is_untouched()
    assert query(file, "SELECT * FROM user_insights") == before


def test_a_kept_rollback_that_stays_in_its_database_is_run(file: Path) -> None:
    run_sql(file, "CREATE TABLE moods (id);")
    keep(file, UNKNOWN, "CREATE TABLE moods (id);", "DROP TABLE moods; PRAGMA user_version = 3;")
    arguments = ("--no-config-file", "--batch", "--database", f"sqlite+atomic:///{file}", FOLDER)
    ran = yoyo_in_child("rollback", "--revision", UNKNOWN, *arguments, folder=file.parent)

    assert (ran.code, ran.error) == (0, "")
    assert query(file, "PRAGMA user_version") == [(3,)]


@pytest.mark.slow
def test_a_kept_rollback_ends(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_SECONDS_TO_REHEARSE", 0.2)
    keep(file, UNKNOWN, "CREATE TABLE moods (id);", f"{_NUMBERS} SELECT count(*) FROM n;")
    with backend.AtomicSQLiteBackend(SQLiteLocation(file)) as opened:
        kept = opened.read([str(FOLDER)], opened.kept_migrations())
        with pytest.raises(MigrationFailed, match="interrupted"):
            opened.rollback_migrations(opened.to_rollback(kept).filter(lambda one: one.id == UNKNOWN))


# Migrations of an operator's own, which do what they are meant to when they are applied.
OWN = {
    "ATTACH": "ATTACH 'VICTIM' AS v; INSERT INTO v.hands VALUES (2);",
    "VACUUM INTO": "VACUUM INTO 'NEW';",
}


@pytest.mark.parametrize("text", OWN.values(), ids=OWN)
def test_an_own_migration_writes_elsewhere_only_when_it_is_applied(
    text: str, project: Project, victim: Victim
) -> None:
    project.write("001_add_hands", "CREATE TABLE hands (id INTEGER PRIMARY KEY);", "DROP TABLE hands;")
    assert project.yoyo("apply").returncode == 0
    project.write(
        "002_write", f"-- depends: 001_add_hands\n-- transactional: false\n{victim.text(text)}", "SELECT 1;"
    )
    (tried,) = rehearsed(project).migrations
    assert tried.verdict is None
    assert "this cannot be rehearsed: it attaches another database" in tried.reasons[0]
    assert victim.is_untouched()

    assert project.yoyo("apply").returncode == 0
    assert not victim.is_untouched()
    assert len(query(victim.path, "SELECT * FROM hands")) == (2 if "ATTACH" in text else 1)
    victim.new.unlink(missing_ok=True)

    ran = command("status", "-d", project.database, folder=project.folder)
    assert ran.code == 4
    assert "it attaches another database" in ran.out
    assert len(query(victim.path, "SELECT * FROM hands")) == (2 if "ATTACH" in text else 1)
    assert not victim.new.exists()


def test_an_own_migration_that_finds_a_table_attaches_another_database_once(
    project: Project, victim: Victim
) -> None:
    """Whether what is found is of the right shape is asked in memory, where nothing is attached."""
    project.write("001_add_hands", "CREATE TABLE hands (id INTEGER PRIMARY KEY);", "DROP TABLE hands;")
    assert project.yoyo("apply").returncode == 0
    run_sql(project.database, "CREATE TABLE bets (id);")
    text = "ATTACH 'VICTIM' AS v; CREATE TABLE v.once (id); CREATE TABLE IF NOT EXISTS bets (id);"
    project.write("002_write", f"-- transactional: false\n{victim.text(text)}", "SELECT 1;")

    assert project.yoyo("apply").returncode == 0
    assert query(victim.path, "SELECT count(*) FROM once") == [(0,)]


@pytest.mark.parametrize("pragma", ["writable_schema = ON", "temp_store_directory = '/tmp'"])
def test_a_pragma_that_reaches_beyond_a_copy_is_not_rehearsed(pragma: str, project: Project) -> None:
    project.write("001_add_hands", f"CREATE TABLE hands (id); PRAGMA {pragma};", "DROP TABLE hands;")
    (tried,) = rehearsed(project).migrations

    assert f"this cannot be rehearsed: it sets PRAGMA {pragma.split(maxsplit=1)[0]}" in tried.reasons[0]


def test_what_migrations_usually_do_can_be_rehearsed_and_judged(project: Project) -> None:
    text = """
        PRAGMA user_version = 3; PRAGMA foreign_key_check; PRAGMA legacy_alter_table = ON;
        CREATE TABLE hands (id INTEGER PRIMARY KEY, note TEXT CHECK (json_valid(note)));
        CREATE VIRTUAL TABLE notes USING fts5(note);
        CREATE TRIGGER find AFTER INSERT ON hands BEGIN INSERT INTO notes VALUES (upper(new.note)); END;
        INSERT INTO hands (note) VALUES ('"x"');
        ALTER TABLE hands RENAME COLUMN note TO noted;
        ALTER TABLE hands ADD COLUMN other TEXT;
        CREATE TABLE copied AS SELECT id, noted FROM hands;
        CREATE VIEW seen AS SELECT name FROM pragma_table_info('hands');
        ALTER TABLE copied RENAME COLUMN noted TO note;
    """
    project.write(
        "001_add_hands", text, "DROP VIEW seen; DROP TABLE copied; DROP TABLE hands; DROP TABLE notes;"
    )
    project.write("002_shrink", "-- depends: 001_add_hands\n-- transactional: false\nVACUUM;", "SELECT 1;")
    tried = rehearsed(project).migrations
    assert [one.reasons for one in tried if one.verdict is None] == []
    assert len(tried) == 2
    assert project.yoyo("apply").returncode == 0

    asked = command("status", "-d", project.database, "--json", folder=project.folder).json
    assert asked["unjudged"] == ""


def disguise(table: str, columns: str) -> str:
    """Return statements that replace a table by a view whose query never ends."""
    selected = ", ".join(f"x AS {column}" for column in columns.split())
    return f"ALTER TABLE {table} RENAME TO other; CREATE VIEW {table} AS {_NUMBERS} SELECT {selected} FROM n;"


def endless_trigger(event: str) -> str:
    """Return a trigger on a table of ours that never ends."""
    body = f"INSERT INTO sink {_NUMBERS} SELECT count(*) FROM n;"
    return f"CREATE TABLE sink (a); CREATE TRIGGER t BEFORE {event} BEGIN {body} END;"


_SLOW = " + ".join(["length(hex(zeroblob(5000000)))"] * 10)

# What somebody may have made of a file; each command ends with a message, or does what it is for.
SCHEMAS = {
    "yoyo's table is a view": disguise("_yoyo_migration", "migration_hash migration_id applied_at_utc"),
    "the texts are a view": disguise(
        "_migration_text", "migration_table migration_id applied_at checksum apply_sql rollback_sql"
    ),
    "the adopted are a view": f"CREATE VIEW _migration_adopted AS {_NUMBERS} SELECT x AS table_name FROM n;",
    "the patterns are a view": disguise(
        "user_patterns",
        "id user_id pattern_type pattern_key pattern_value confidence created_at updated_at",
    ),
    "ids are generated and large": """
        DROP TABLE _yoyo_migration;
        CREATE TABLE _yoyo_migration (
            migration_hash, applied_at_utc, migration_id AS (hex(zeroblob(20000000)))
        );
        INSERT INTO _yoyo_migration VALUES (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6);
    """,
    "ids take long": f"""
        DROP TABLE _yoyo_migration;
        CREATE TABLE _yoyo_migration (migration_hash, applied_at_utc, migration_id AS ({_SLOW}));
        INSERT INTO _yoyo_migration {_NUMBERS} SELECT x, x FROM n LIMIT 1000;
    """,
    "a delete does not end": endless_trigger("DELETE ON user_patterns"),
    "a trigger loads an extension": """
        CREATE TRIGGER t BEFORE DELETE ON user_patterns BEGIN SELECT load_extension('/tmp/x'); END;
    """,
    "a check is slow": f"CREATE TABLE slow (a CHECK ({_SLOW} > a)); INSERT INTO slow VALUES (1), (2), (3);",
    "an id is bytes": """
        INSERT INTO _yoyo_migration (migration_hash, migration_id) VALUES ('x', x'3939ff');
        INSERT INTO _migration_text (migration_table, migration_id, apply_sql)
        VALUES ('_yoyo_migration', x'3939ff', 'SELECT 1');
    """,
    "an id is a number": """
        INSERT INTO _yoyo_migration (migration_hash, migration_id) VALUES ('x', 12), ('y', NULL);
        INSERT INTO _migration_text (migration_table, migration_id, apply_sql)
        VALUES ('_yoyo_migration', 12, 3);
    """,
    "texts are bytes": "UPDATE _migration_text SET apply_sql = x'00ff', checksum = x'ff', applied_at = 5;",
    "texts are no UTF-8": "UPDATE _migration_text SET apply_sql = CAST(x'ff' AS TEXT);",
    "a text has many lines": """
        UPDATE _migration_text
        SET checksum = 'x', apply_sql = replace(hex(zeroblob(500000)), '00', 'x' || char(10));
    """,
    "the texts are an index of words": """
        DROP TABLE _migration_text;
        CREATE VIRTUAL TABLE _migration_text
        USING fts5(migration_table, migration_id, applied_at, checksum, apply_sql, rollback_sql);
    """,
    "a text of SQL is broken": """
        PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET sql = 'CREATE TABLE user_patterns (((' WHERE name = 'user_patterns';
    """,
    "a text of SQL is bytes": """
        PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET sql = CAST(sql AS BLOB) WHERE name = 'user_insights';
    """,
    "a table has no name": """
        PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET tbl_name = NULL WHERE name = 'user_insights';
    """,
    "a table says that it is a view": """
        PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET type = 'view' WHERE name = 'user_insights';
    """,
}

COMMANDS = (
    "status", "rehearse", "backup", "backup --list", "export 7", "purge", "forget 7 --yes",
    "copy RexVoice.db new.db", "restore RexVoice.db",
)  # fmt: skip


def run_every_command(file: Path) -> None:
    """Run every command on a file, each on a copy of its own; less time is given than to an operator."""
    for module in (backend, catalog, connect):
        for name in ("_SECONDS", "_SECONDS_TO_READ", "_SECONDS_TO_BUILD", "_SECONDS_TO_REHEARSE"):
            if hasattr(module, name):
                setattr(module, name, 0.2)
    for name in COMMANDS:
        folder = file.parent / name.replace(" ", "_")
        folder.mkdir()
        shutil.copy(file, folder / "RexVoice.db")
        place = [] if name.startswith("copy") else ["-d", "other.db" if "restore" in name else "RexVoice.db"]
        ran = command(*name.split(), *place, folder=folder)
        assert ran.code in (0, 1, 3, 4), ran
        assert ran.code in (0, 3, 4) or ran.error.startswith("poker-therapist: "), ran
        print(name, ran.code, (ran.error or ran.out)[-300:].replace("\n", " "))


@pytest.mark.slow
@pytest.mark.parametrize("statements", SCHEMAS.values(), ids=SCHEMAS)
def test_every_command_ends_with_a_message(statements: str, file: Path) -> None:
    run_sql(file, f"PRAGMA journal_mode = DELETE; {statements}")
    done = in_child(lambda: run_every_command(file))

    assert (done.code, done.error) == (0, ""), done.out + done.error
    assert len(done.lines) == len(COMMANDS)


def test_a_text_that_is_too_long_is_not_read(file: Path) -> None:
    """It is neither looked at nor run, and what else there is can be used."""
    keep(file, UNKNOWN, b"-" * 40_000_000, "DROP TABLE user_patterns;")
    ran = command("status", "-d", file, "--json", folder=file.parent)

    assert (ran.code, ran.json["migrations"][-1]["state"]) == (4, "unknown")
    arguments = ("--no-config-file", "--batch", "--database", f"sqlite+atomic:///{file}", FOLDER)
    rolled = yoyo_in_child("rollback", "--revision", UNKNOWN, *arguments, folder=file.parent)
    assert "its scripts are not stored in the database" in rolled.error
    assert query(file, "SELECT count(*) FROM user_patterns") == [(1,)]


def test_a_trigger_that_comes_with_a_backup_is_named(file: Path, tmp_path: Path) -> None:
    """One that keeps what is saved elsewhere, say, where no `forget` finds it."""
    run_sql(
        file,
        "CREATE TABLE sink (a); CREATE TRIGGER t AFTER INSERT ON user_patterns "
        "BEGIN INSERT INTO sink VALUES (new.pattern_value); END;",
    )
    ran = command("restore", file, "-d", tmp_path / "restored.db", folder=tmp_path)

    assert (ran.code, ran.error) == (0, "")
    assert ran.lines[-1] == "trigger t is in the backup, but no migration creates it: check what it does"


def test_triggers_call_the_functions_that_the_app_has_given(file: Path) -> None:
    """What the app itself registers is trusted, in a file that it has opened."""
    run_sql(
        file,
        "CREATE TABLE told (a);"
        "CREATE TRIGGER tell AFTER INSERT ON user_patterns BEGIN "
        "INSERT INTO told VALUES (shout(new.pattern_key)); END;",
    )
    register: Callable[[Any], object] = lambda one: one.create_function("shout", 1, str.upper)  # noqa: E731
    with get_pattern_storage(file, on_connect=register) as storage:
        storage.save_pattern(7, "tilt", "cooler", 1)

    assert query(file, "SELECT a FROM told") == [("COOLER",)]


def test_what_other_threads_compute_ends_no_look_at_a_file() -> None:
    """Only the time that reading the file takes counts, in a busy program, too."""
    watch = Watch(0.05)

    def compute() -> None:
        end = time.thread_time() + 0.2
        while time.thread_time() < end:
            pass

    busy = threading.Thread(target=compute)
    busy.start()
    busy.join()

    assert not watch.is_over()
    compute()
    assert watch.is_over()
