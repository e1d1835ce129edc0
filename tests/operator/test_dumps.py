"""`poker-therapist backup` and `restore` on PostgreSQL: by pg_dump and pg_restore, whole or not at all."""

import logging
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from poker_therapist import get_pattern_storage
from poker_therapist.location import locate
from poker_therapist.postgresql.backend import AtomicPostgreSQLBackend
from poker_therapist.postgresql.catalog import describe
from poker_therapist.schema import migrations_folder, shipped_ids
from tests.helpers.backups import APP
from tests.helpers.cli import command, in_child, refused, state_of
from tests.helpers.databases import Databases
from tests.helpers.migrating import IDS, NEXT
from tests.helpers.postgresql import name_of, yoyo_in_child

# Each runs the programs of PostgreSQL.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("programs")]

USER = 7
SHIPPED = migrations_folder("postgresql")
# What could be taken for a part of a dump, or for the end of one of its rows.
ODD = "a\tb\nc\\.\n\\.\n\\N \\\\n COPY x (y) FROM stdin;\r\n\\unrestrict \u2028 \U0001f0a1"


@pytest.fixture(scope="module")
def template(databases: Databases, migrated_template: str) -> Iterator[str]:
    """The name of a database that holds one pattern, and a table of the app's."""
    with databases.fresh(migrated_template) as url:
        save(url, "first")
        run(url, "CREATE TABLE users (id INT PRIMARY KEY); INSERT INTO users VALUES (7)")
        yield name_of(url)


@pytest.fixture
def database(databases: Databases, template: str) -> Iterator[str]:
    """A copy of that database."""
    with databases.fresh(template) as url:
        yield url


def run(url: str, statements: str) -> None:
    """Run statements as another program would."""
    with psycopg.connect(url) as connection:
        connection.execute(statements.encode())


def save(url: str, text: str) -> None:
    with get_pattern_storage(url) as storage:
        storage.save_pattern(USER, "tilt", "after_bad_beat", text)


def value(url: str) -> object:
    """Return the one pattern of a database."""
    with get_pattern_storage(url) as storage:
        return storage.get_pattern(USER, "tilt", "after_bad_beat")


def everything(url: str) -> dict[str, Any]:
    """Return the schema, all rows and the counters of ids."""
    found: dict[str, Any] = {}
    with psycopg.connect(url) as connection:
        found["schema"] = describe(connection, "public").facts()
        relations = connection.execute(
            """
            SELECT relname, relkind::text FROM pg_class
            WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'S') ORDER BY relname
            """
        ).fetchall()
        for name, kind in relations:
            row = "(last_value, is_called)" if kind == "S" else "one"
            query = sql.SQL("SELECT {}::text FROM {} AS one").format(sql.SQL(row), sql.Identifier(name))
            found[name] = sorted(connection.execute(query).fetchall())
    return found


def applied(url: str) -> list[str]:
    with AtomicPostgreSQLBackend(locate(url)) as backend:
        return sorted(backend.applied())


def up(url: str, to: str, *folders: Path) -> None:
    """Apply every migration up to one."""
    with AtomicPostgreSQLBackend(locate(url)) as backend:
        known = backend.read([str(folder) for folder in (SHIPPED, *folders)])
        backend.apply_migrations(backend.to_apply(known).filter(lambda migration: migration.id <= to))


def with_option(url: str, option: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{option}"


def back_up(url: str, folder: Path, output: str = "monday.backup") -> Path:
    """Make a backup and return its file."""
    ran = command("backup", "--database", url, "--output", output, folder=folder)

    assert (ran.code, ran.error, ran.lines) == (0, "", [output])
    return folder / output


def restore(file: Path | str, url: str, folder: Path) -> list[str]:
    """Restore a backup and return what was said."""
    ran = command("restore", file, "--database", url, folder=folder)

    assert (ran.code, ran.error) == (0, "")
    end = ran.lines.index(f"restored {locate(url).name}")
    return ran.lines[:end] + ran.lines[end + 1 :]


def later(folder: Path) -> Path:
    """Write migrations that come after the shipped ones, and make what those do not."""
    folder.mkdir()
    folder.joinpath(f"{NEXT}_add_moods.sql").write_text(
        f"""-- depends: {IDS[-1]}
        /* also: */ create table if not exists public."Mood ""of"" it" (id SERIAL PRIMARY KEY);
        CREATE UNLOGGED TABLE old_name (id INT REFERENCES "Mood ""of"" it" (id));
        ALTER TABLE old_name RENAME TO new_name;
        CREATE OR REPLACE VIEW sad AS SELECT * FROM "Mood ""of"" it" JOIN new_name USING (id);
        CREATE SEQUENCE tickets;
        INSERT INTO "Mood ""of"" it" DEFAULT VALUES;
        """
    )
    folder.joinpath(f"{NEXT}_add_moods.rollback.sql").write_text(
        'DROP SEQUENCE tickets; DROP VIEW sad; DROP TABLE new_name; DROP TABLE "Mood ""of"" it";'
    )
    return folder


def fake(folder: Path, name: str, script: str) -> dict[str, str]:
    """Put a script in the place of a program, and return the PATH on which it is found."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def test_the_name_of_a_backup_is_on_the_disk_when_it_is_reported(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pg_dump has brought its content there, under another name."""
    named: list[Path] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        is_folder = os.path.samestat(os.fstat(descriptor), tmp_path.stat())
        named.extend(tmp_path.glob("*.backup") if is_folder else ())

    monkeypatch.setattr(os, "fsync", watched)
    ran = command("backup", "--database", database, folder=tmp_path)

    assert [str(path) for path in named] == ran.lines


def test_a_backup_lies_in_the_working_folder_and_is_named_by_database_and_time(
    database: str, tmp_path: Path
) -> None:
    """By the program; nobody but its owner may read it."""
    ran = in_child("backup", "--database", database, folder=tmp_path)
    backup = Path(ran.lines[0])

    assert (ran.code, ran.error) == (0, "")
    assert backup.match(f"{urlsplit(database).path[1:]}.????????T??????.??????Z.backup")
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [backup]


def test_everything_comes_back(database: str, tmp_path: Path) -> None:
    """Rows of any value, counters of ids, the record of migrations and their texts."""
    with get_pattern_storage(database) as storage:
        storage.save_pattern(USER, ODD, "odd", {ODD: [ODD + "\0", None, 1.5]})
        storage.save_context(USER, "odd", ODD)
        storage.save_insight(8, "leak", ["calls", "too", "much"])
    run(
        database,
        "INSERT INTO legacy_rows (migration_id, table_name, row_id, user_id, value) "
        "VALUES ('003', 'user_patterns', 1, 7, NULL), ('003', 'user_patterns', 2, 7, 'null')",
    )
    before = everything(database)
    back_up(database, tmp_path)
    with get_pattern_storage(database) as storage:
        storage.forget_user(USER)
        storage.save_insight(8, "leak", "folds too little")
    run(database, "DELETE FROM _migration_text; DROP TABLE conversation_context; DELETE FROM _yoyo_log")

    replaced = restore("monday.backup", database, tmp_path)

    assert everything(database) == before
    assert len(replaced) == 1
    assert re.fullmatch(r"backup: .*\.before-restore\.backup", replaced[0])

    with get_pattern_storage(database) as storage:
        storage.save_insight(8, "leak", "another")
        ids = [insight["id"] for insight in storage.export_user(8)["insights"]]
    assert len(set(ids)) == 2


def test_what_is_not_ours_is_neither_backed_up_nor_restored(database: str, tmp_path: Path) -> None:
    """The app's own tables in the same schema go on as they are; nor need they be readable."""
    backup = back_up(database, tmp_path)
    run(database, "INSERT INTO users VALUES (8)")
    restore(backup, database, tmp_path)

    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT id FROM users ORDER BY id").fetchall() == [(7,), (8,)]
    assert "users" not in listed(backup)


def listed(backup: Path) -> str:
    done = subprocess.run(["pg_restore", "--list", backup], capture_output=True, text=True, check=True)
    return done.stdout


def test_everything_that_the_migrations_make_is_in_a_backup(
    migrated_postgresql_url: str, tmp_path: Path
) -> None:
    """Whatever they come to make that is neither table, view nor sequence is found out here."""
    whole = tmp_path / "whole"
    subprocess.run(["pg_dump", "-Fc", "-f", whole, "-d", migrated_postgresql_url], check=True)
    lists = [
        {line.partition("; ")[2] for line in listed(file).splitlines() if not line.startswith(";")}
        for file in (whole, back_up(migrated_postgresql_url, tmp_path))
    ]

    assert len(lists[0]) > 30
    assert {re.sub(r"^\d+ \d+ ", "", line) for line in lists[0] ^ lists[1]} <= {
        "SCHEMA - public pg_database_owner",
        "COMMENT - SCHEMA public pg_database_owner",
    }


def test_an_empty_database_is_filled(database: str, postgresql_url: str, tmp_path: Path) -> None:
    """Nothing is replaced, so nothing is backed up; the storage opens it as it opens the original."""
    backup = back_up(database, tmp_path)

    assert restore(backup, postgresql_url, tmp_path) == []
    assert list(tmp_path.iterdir()) == [backup]

    run(database, "DROP TABLE users")

    assert everything(postgresql_url) == everything(database)
    assert value(postgresql_url) == "first"


def test_nothing_is_no_backup(postgresql_url: str, tmp_path: Path) -> None:
    """A database in which no migration was ever applied, or the wrong one."""
    run(postgresql_url, "CREATE TABLE user_patterns (id INT)")
    message = refused("backup", "-d", postgresql_url, folder=tmp_path)

    assert "has no tables of Poker Therapist to back up" in message
    assert list(tmp_path.iterdir()) == []


def test_a_restored_database_of_an_older_version_goes_on_from_there(
    postgresql_url: str, tmp_path: Path
) -> None:
    """`yoyo apply` applies what the backup lacks."""
    up(postgresql_url, IDS[1])
    run(
        postgresql_url,
        "INSERT INTO user_insights (user_id, insight_type, insight_data) VALUES (7, 'leak', '1')",
    )
    before = everything(postgresql_url)
    backup = back_up(postgresql_url, tmp_path)
    up(postgresql_url, IDS[-1])
    restore(backup, postgresql_url, tmp_path)

    assert everything(postgresql_url) == before
    assert applied(postgresql_url) == IDS[:2]

    url = postgresql_url.replace("postgresql", "postgresql+atomic", 1)
    done = yoyo_in_child("apply", "--no-config-file", "--batch", "-d", url, SHIPPED, folder=tmp_path)

    assert (done.code, done.error) == (0, "")
    assert applied(postgresql_url) == IDS


def test_a_backup_from_before_the_record_of_texts_is_restored(postgresql_url: str, tmp_path: Path) -> None:
    """Plain yoyo keeps none; what it has applied is known by the files."""
    up(postgresql_url, IDS[-1])
    run(postgresql_url, "DROP TABLE _migration_text")
    before = everything(postgresql_url)
    backup = back_up(postgresql_url, tmp_path)
    run(postgresql_url, "DELETE FROM _yoyo_log")
    restore(backup, postgresql_url, tmp_path)

    assert everything(postgresql_url) == before
    assert "user_patterns" in before


def test_what_later_migrations_made_is_not_in_the_way(database: str, tmp_path: Path) -> None:
    """A restored database has none of it, so they can be applied again; a backup holds it all."""
    before = everything(database)
    first = back_up(database, tmp_path, "first.backup")
    folder = later(tmp_path / "later")
    up(database, "999", folder)
    after = everything(database)
    [backup] = restore(first, database, tmp_path)

    assert everything(database) == before

    up(database, "999", folder)

    assert everything(database)["schema"] == after["schema"]

    for name in ('Mood "of" it', "new_name", "sad", "tickets"):
        assert f" {name} " in listed(Path(backup.removeprefix("backup: ")))


def test_a_backup_of_a_later_version_is_refused(database: str, tmp_path: Path) -> None:
    folder = later(tmp_path / "later")
    up(database, "999", folder)
    back_up(database, tmp_path)
    before = everything(database), state_of(tmp_path)
    message = refused("restore", "monday.backup", "-d", database, folder=tmp_path)

    assert (
        message == f"{tmp_path}/monday.backup was made by a later version ({NEXT}_add_moods): update the code"
    )
    assert (everything(database), state_of(tmp_path)) == before


def test_tables_of_a_cluster_come_back_as_plain_ones(
    database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A dump does not distribute, so the migration that does is pending again, and that is said."""
    (distributing,) = shipped_ids("citus")
    with AtomicPostgreSQLBackend(locate(database)) as backend:
        backend.mark_migrations(
            backend.to_apply(backend.read([str(SHIPPED), str(migrations_folder("citus"))]))
        )
    assert distributing in applied(database)
    caplog.clear()
    backup = back_up(database, tmp_path)
    restore(backup, database, tmp_path)

    assert applied(database) == IDS
    with AtomicPostgreSQLBackend(locate(database)) as backend:
        assert sorted(backend.records()) == IDS
    assert [(one.levelno, distributing in one.message) for one in caplog.records] == [(logging.WARNING, True)]


@pytest.fixture
def role(database: str) -> Iterator[str]:
    """A role that may use the schema; it goes at the end."""
    name = f"dumps_{urlsplit(database).path[1:]}"
    run(database, f"CREATE ROLE {name}; GRANT USAGE ON SCHEMA public TO {name}")
    yield name
    run(database, f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


def test_what_is_restored_belongs_to_the_role_that_restores(
    database: str, postgresql_url: str, role: str, tmp_path: Path
) -> None:
    """Another server need not have the roles; so no right is restored, even where the role exists."""
    run(database, f"ALTER TABLE user_insights OWNER TO {role}; GRANT SELECT ON user_patterns TO {role}")
    backup = back_up(database, tmp_path)
    for url in (database, postgresql_url):
        restore(backup, url, tmp_path)

        with psycopg.connect(url) as connection:
            found = connection.execute(
                "SELECT relowner = current_user::regrole, relacl FROM pg_class "
                "WHERE relname IN ('user_insights', 'user_patterns')"
            ).fetchall()
        assert found == [(True, None)] * 2


@pytest.mark.parametrize("deed", ["backup", "restore"])
def test_a_right_that_is_missing_is_named(deed: str, database: str, role: str, tmp_path: Path) -> None:
    """A role that may read the record of the migrations, and not the tables of the players."""
    backup = back_up(database, tmp_path)
    run(database, f"GRANT SELECT ON _yoyo_migration, _migration_text TO {role}")
    before = everything(database), state_of(tmp_path)
    arguments = [backup] if deed == "restore" else []
    url = with_option(database, f"options=-c%20role%3D{role}")
    message = refused(deed, *arguments, "-d", url, folder=tmp_path)

    assert "permission denied for table" in message
    assert message.endswith(": connect as the role that owns the tables; nothing was changed")
    assert (everything(database), state_of(tmp_path)) == before


def test_who_does_not_own_the_tables_restores_nothing(database: str, role: str, tmp_path: Path) -> None:
    """A role that may read everything, and lock it."""
    backup = back_up(database, tmp_path)
    run(database, f"GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}")
    run(database, f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}")
    before = everything(database), state_of(tmp_path)
    url = with_option(database, f"options=-c%20role%3D{role}")
    message = refused("restore", backup, "-d", url, folder=tmp_path)

    assert re.search(r"\(must be owner of table \w+\): connect as the role that owns the tables", message)
    assert (everything(database), state_of(tmp_path)) == before


def test_what_others_have_set_on_our_tables_comes_back(database: str, tmp_path: Path) -> None:
    """No backup is made that would be refused later."""
    run(
        database,
        """
        CREATE FUNCTION note() RETURNS TRIGGER LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER noted BEFORE UPDATE ON user_insights FOR EACH ROW EXECUTE FUNCTION note();
        CREATE RULE quiet AS ON DELETE TO legacy_rows DO INSTEAD NOTHING;
        COMMENT ON TABLE user_insights IS 'what Rex concludes';
        ALTER TABLE user_insights ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON user_insights USING (user_id = 7);
        """,
    )
    backup = back_up(database, tmp_path)
    query = """
        SELECT 'user_insights'::regclass::oid, obj_description('user_insights'::regclass),
        (SELECT count(*) FROM pg_trigger WHERE tgname = 'noted'),
        (SELECT count(*) FROM pg_rules WHERE rulename = 'quiet'),
        (SELECT count(*) FROM pg_policies WHERE policyname = 'own'),
        (SELECT relrowsecurity FROM pg_class WHERE relname = 'user_insights')
    """
    found = []
    for _ in range(2):
        with psycopg.connect(database) as connection:
            found += connection.execute(query).fetchall()
        restore(backup, database, tmp_path)

    assert found[0][0] != found[1][0]
    assert found[0][1:] == found[1][1:] == ("what Rex concludes", 1, 1, 1, True)


def test_a_backup_of_another_schema_is_refused(database: str, postgresql_url: str, tmp_path: Path) -> None:
    """With what to do about it; and with the schema in the URL it is restored."""
    run(database, "CREATE SCHEMA rex")
    run(postgresql_url, "CREATE SCHEMA rex")
    save(with_option(database, "schema=rex"), "of rex")
    backup = back_up(with_option(database, "schema=rex"), tmp_path)

    assert refused("restore", backup, "-d", database, folder=tmp_path) == (
        f"{backup} is a backup of the schema rex, not of public: add schema=rex to the URL of the database"
    )
    assert value(database) == "first"

    restore(backup, with_option(postgresql_url, "schema=rex"), tmp_path)

    assert value(with_option(postgresql_url, "schema=rex")) == "of rex"


def a_letter(path: Path, url: str) -> None:
    path.write_text("a letter to Ann " * 1000)


def empty(path: Path, url: str) -> None:
    path.touch()


def a_folder(path: Path, url: str) -> None:
    path.mkdir()


def not_there(path: Path, url: str) -> None:
    """There is nothing."""


def a_script(path: Path, url: str) -> None:
    subprocess.run(["pg_dump", "-f", path, "-d", url], check=True)


def of_sqlite(path: Path, url: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE user_patterns (id INTEGER)")


def cut_off(path: Path, url: str) -> None:
    backup = back_up(url, path.parent).read_bytes()
    path.write_bytes(backup[:-2000])


def cut_short(path: Path, url: str) -> None:
    path.write_bytes(back_up(url, path.parent).read_bytes()[:300])


def torn(path: Path, url: str) -> None:
    backup = back_up(url, path.parent).read_bytes()
    # Within the rows, which are compressed.
    path.write_bytes(backup[:-3000] + b"\xff" * 500 + backup[-2500:])


def somebody_elses(path: Path, url: str) -> None:
    subprocess.run(["pg_dump", "-Fc", "-t", "users", "-f", path, "-d", url], check=True)


def of_the_whole_database(path: Path, url: str) -> None:
    subprocess.run(["pg_dump", "-Fc", "-f", path, "-d", url], check=True)


def with_a_function(path: Path, url: str) -> None:
    run(url, "CREATE FUNCTION f() RETURNS INT LANGUAGE sql AS 'SELECT 1'")
    of_the_whole_database(path, url)


def of_two_schemas(path: Path, url: str) -> None:
    run(url, "CREATE SCHEMA other; CREATE TABLE other.notes (id INT)")
    subprocess.run(["pg_dump", "-Fc", "-t", "public.*", "-t", "other.*", "-f", path, "-d", url], check=True)


def of_rows_alone(path: Path, url: str) -> None:
    subprocess.run(["pg_dump", "-Fc", "-a", "-T", "users", "-f", path, "-d", url], check=True)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (a_letter, "is not a dump, or is damaged"),
        (empty, "is not a dump, or is damaged"),
        (a_script, "is not a dump, or is damaged"),
        (of_sqlite, "is not a dump, or is damaged"),
        (cut_off, "is not a dump, or is damaged"),
        (cut_short, "is not a dump, or is damaged"),
        (torn, "is not a dump, or is damaged"),
        (a_folder, "there is no file"),
        (not_there, "there is no file"),
        (somebody_elses, "of Poker Therapist: correct the path"),
        (of_the_whole_database, 'could not be restored (relation "users" already exists)'),
        (with_a_function, "has an unexpected object (FUNCTION public f() "),
        (of_two_schemas, "is a backup of the schema other, public, not of public"),
        (of_rows_alone, "could not be restored (relation "),
    ],
)
def test_a_file_that_cannot_be_restored_is_refused(
    make: Callable[[Path, str], None], says: str, database: str, tmp_path: Path
) -> None:
    """With what is wrong; the database is as it was, and no backup is made."""
    with get_pattern_storage(database) as storage:
        for number in range(50):
            storage.save_pattern(8, "tilt", str(number), os.urandom(200).hex())
    make(tmp_path / "wrong.backup", database)
    before = everything(database), state_of(tmp_path)
    message = refused("restore", "wrong.backup", "-d", database, folder=tmp_path)

    assert says in message
    assert "wrong.backup" in message
    assert "\n" not in message
    assert (everything(database), state_of(tmp_path)) == before


@pytest.mark.parametrize("missing", ["pg_dump", "pg_restore"])
@pytest.mark.parametrize("deed", ["backup", "restore"])
def test_a_missing_program_is_named(
    deed: str, missing: str, database: str, tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to install."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in {"pg_dump", "pg_restore"} - {missing}:
        fake(tmp_path / "bin", name, f'exec "{programs / name}" "$@"')
    arguments = ["monday.backup"] if deed == "restore" else []
    message = refused(deed, *arguments, "-d", database, folder=tmp_path)

    assert message.startswith(f"{missing} is not installed, or its folder is not on PATH: install ")


def test_a_pg_dump_older_than_the_server_is_named_with_both_versions(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaint = (
        "echo 'pg_dump: error: aborting because of server version mismatch' >&2\n"
        "echo 'pg_dump: detail: server version: 18.6; pg_dump version: 15.18 (Debian 15.18-0+deb12u1)' >&2\n"
        "exit 1"
    )
    monkeypatch.setenv("PATH", fake(tmp_path / "bin", "pg_dump", complaint)["PATH"])
    before = state_of(tmp_path)
    message = refused("backup", "-d", database, folder=tmp_path)

    assert message.startswith(
        "pg_dump is older than the server (server version: 18.6; pg_dump version: 15.18 (Debian "
        "15.18-0+deb12u1)): install "
    )
    assert state_of(tmp_path) == before


def test_a_pg_restore_older_than_the_dump_is_named(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = back_up(database, tmp_path)
    complaint = "echo 'pg_restore: error: unsupported version (1.16) in file header' >&2; exit 1"
    monkeypatch.setenv("PATH", fake(tmp_path / "bin", "pg_restore", complaint)["PATH"])
    message = refused("restore", backup, "-d", database, folder=tmp_path)

    assert message.startswith(
        "pg_restore is older than the one that made the dump (unsupported version (1.16) in file header): "
        "install "
    )


@pytest.mark.parametrize(
    ("complaint", "says"),
    [
        (
            ["error: could not write to output file: No space left on device"],
            "(could not write to output file: No space left on device): free disk space",
        ),
        (
            ["error: query failed: ERROR:  permission denied for table x", "detail: Query was: LOCK TABLE x"],
            "(query failed: ERROR: permission denied for table x)",
        ),
        (
            [
                "error: Dumping the contents of table x failed: PQgetResult() failed.",
                "detail: Error message from server: ERROR:  missing chunk number 0",
                "detail: Command was: COPY x",
            ],
            "(ERROR: missing chunk number 0)",
        ),
        ([], "(it gave no reason)"),
    ],
)
def test_a_dump_that_fails_is_explained_on_one_line(
    complaint: list[str], says: str, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is left of it."""
    script = "\n".join([*(f"echo 'pg_dump: {line}' >&2" for line in complaint), "exit 1"])
    monkeypatch.setenv("PATH", fake(tmp_path / "bin", "pg_dump", script)["PATH"])
    before = state_of(tmp_path)
    message = refused("backup", "-d", database, folder=tmp_path)

    assert says in message
    assert "\n" not in message
    assert state_of(tmp_path) == before


def test_a_dump_that_cannot_be_read_again_is_not_kept(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pg_dump says that all went well."""
    monkeypatch.setenv("PATH", fake(tmp_path / "bin", "pg_dump", "exit 0")["PATH"])
    before = state_of(tmp_path)

    assert "could not be dumped" in refused("backup", "-d", database, folder=tmp_path)
    assert state_of(tmp_path) == before


def test_a_view_of_the_apps_is_not_dropped(database: str, tmp_path: Path) -> None:
    """The restore is refused, naming it; nothing is changed, and no backup of nothing is left."""
    backup = back_up(database, tmp_path)
    save(database, "second")
    run(database, "CREATE VIEW report AS SELECT count(*) FROM user_patterns")
    before = everything(database), state_of(tmp_path)
    message = refused("restore", backup, "-d", database, folder=tmp_path)

    assert "view public.report depends on table public.user_patterns" in message
    assert message.endswith("nothing was changed")
    assert (everything(database), state_of(tmp_path)) == before


def fake_restore(
    folder: Path, programs: Path, monkeypatch: pytest.MonkeyPatch, change: str, ending: str = ""
) -> None:
    """Put a program on PATH that changes the script of a dump."""
    script = f"""
        case " $* " in
        *" --file=- "*) '{programs}/pg_restore' "$@" | {change}; {ending};;
        *) exec '{programs}/pg_restore' "$@";;
        esac
    """
    monkeypatch.setenv("PATH", fake(folder, "pg_restore", script)["PATH"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("s/    row_id bigint NOT NULL/    row_id bigint NOT NIL/", "syntax error"),
        ("/^COPY public.user_patterns /a broken", "invalid input syntax for type bigint)"),
        ("s/^CREATE INDEX \\(.*\\) USING btree/CREATE INDEX \\1 USING betree/", "does not exist"),
    ],
    ids=["tables", "rows", "indexes"],
)
def test_a_restore_that_fails_in_the_middle_changes_nothing(
    change: str, says: str, database: str, tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = back_up(database, tmp_path)
    save(database, "second")
    fake_restore(tmp_path / "bin", programs, monkeypatch, f"sed '{change}'", "true")
    before = everything(database), state_of(tmp_path)
    message = refused("restore", backup, "-d", database, folder=tmp_path)

    assert message.startswith(f"{backup} could not be restored (")
    assert says in message
    assert "\n" not in message
    assert (everything(database), state_of(tmp_path)) == before


PATCHES = [
    "s/^SET row_security = off;/CREATE ROLE patched SUPERUSER;/",
    "s/^SET row_security = off;/SET row_security = off; CREATE ROLE patched SUPERUSER;/",
    "s/^SET row_security = off;/DO $x$ BEGIN CREATE ROLE patched SUPERUSER; END $x$;/",
    "s/^SET row_security = off;/COPY public.user_insights FROM PROGRAM 'createuser patched';/",
    r"s/^SET row_security = off;/\\! createuser patched/",
    r"s/^SET row_security = off;/\\copy x FROM 'y'/",
    "s/^SET row_security = off;/SELECT pg_catalog.pg_reload_conf();/",
    "s/^SET row_security = off;/CREATE FUNCTION public.f() RETURNS INT LANGUAGE sql AS 'SELECT 1';/",
    "s/^SET row_security = off;/ALTER TABLE public.user_insights OWNER TO patched;/",
    "s/DEFAULT now()/DEFAULT pg_catalog.pg_stat_file('x')/",
    "s/DEFAULT now()/DEFAULT PG_STAT_FILE ('x')/",
    "s/DEFAULT now()/DEFAULT public.strangers()/",
    "s/(context_key <> ''::text)/(pg_sleep(9) IS NULL)/",
    """s/^    row_id bigint/"x'" int DEFAULT pg_stat_file('x'), "y'" int, row_id bigint/""",
    "s/USING btree (user_id, importance, id)/USING btree (pg_reload_conf())/",
    "s/^CREATE TABLE public.legacy_rows (/CREATE TABLE pg_catalog.legacy_rows (/",
]


def test_what_is_not_of_our_tables_is_refused_before_anything_is_run(
    database: str, tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dump comes from elsewhere: it is data, and whoever restores it may be a superuser."""
    run(
        database,
        f"""
        CREATE ROLE "stranger of {tmp_path.name}"; GRANT CREATE ON SCHEMA public TO PUBLIC;
        SET ROLE "stranger of {tmp_path.name}";
        CREATE FUNCTION strangers() RETURNS TIMESTAMPTZ LANGUAGE sql AS 'SELECT now()';
        """,
    )
    backup = back_up(database, tmp_path)
    fake_restore(tmp_path / "bin", programs, monkeypatch, f"sed -f {tmp_path}/change", "true")
    tmp_path.joinpath("change").touch()
    before = everything(database), [name for name in state_of(tmp_path) if "change" not in str(name)]
    for patch in PATCHES:
        tmp_path.joinpath("change").write_text(patch)
        message = refused("restore", backup, "-d", database, folder=tmp_path)
        assert message.startswith(f"{backup} has an unexpected statement ("), patch

    left = [name for name in state_of(tmp_path) if "change" not in str(name)]
    assert (everything(database), left) == before
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT FROM pg_roles WHERE rolname = 'patched'").fetchall() == []
    run(database, f'DROP FUNCTION strangers(); DROP OWNED BY "stranger of {tmp_path.name}"')
    run(database, f'DROP ROLE "stranger of {tmp_path.name}"')


def test_half_of_a_script_is_not_taken_for_the_whole(
    database: str, tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pg_restore fails after the first half of what it has to say."""
    backup = back_up(database, tmp_path)
    save(database, "second")
    ending = "echo 'pg_restore: error: could not read from input file: end of file' >&2; exit 1"
    fake_restore(tmp_path / "bin", programs, monkeypatch, "head -c 20000", ending)
    before = everything(database), state_of(tmp_path)
    message = refused("restore", backup, "-d", database, folder=tmp_path)

    assert message.startswith(
        f"{backup} is not a dump, or is damaged (could not read from input file: end of"
    )
    assert (everything(database), state_of(tmp_path)) == before


def test_what_the_server_refuses_changes_nothing_and_shows_no_rows(database: str, tmp_path: Path) -> None:
    """An index of the dump that its rows break, as after a change of the system's locales."""
    run(
        database,
        """
        CREATE UNIQUE INDEX broken ON user_patterns (user_id) WHERE false;
        UPDATE pg_index SET indpred = NULL WHERE indexrelid = 'broken'::regclass;
        """,
    )
    with get_pattern_storage(database) as storage:
        storage.save_pattern(USER, "tilt", "secret", "secret")
    backup = back_up(database, tmp_path)
    before = everything(database), state_of(tmp_path)
    message = refused("restore", backup, "-d", database, folder=tmp_path)

    assert message == (
        f'{backup} could not be restored (could not create unique index "broken"): nothing was changed'
    )
    assert (everything(database), state_of(tmp_path)) == before


def test_a_transaction_that_does_not_end_is_waited_for_no_longer_than_the_timeout(
    database: str, tmp_path: Path
) -> None:
    """Somebody has read a table and is idle: nothing is changed; nobody else had to wait for long."""
    backup = back_up(database, tmp_path)
    before = everything(database), state_of(tmp_path)
    with psycopg.connect(database) as reader:
        reader.execute("SELECT FROM user_insights")
        message = refused("restore", backup, "-d", with_option(database, "timeout=0.1"), folder=tmp_path)

    assert "is locked" in message
    assert (everything(database), state_of(tmp_path)) == before


def test_a_locked_table_holds_a_backup_up_no_longer_than_the_timeout(database: str, tmp_path: Path) -> None:
    with psycopg.connect(database) as locker:
        locker.execute("LOCK TABLE user_insights")
        message = refused("backup", "-d", with_option(database, "timeout=0.1"), folder=tmp_path)

    assert "is still locked after 0.1 seconds" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("deed", ["backup", "restore"])
def test_nobody_migrates_meanwhile(deed: str, database: str, tmp_path: Path) -> None:
    backup = back_up(database, tmp_path)
    before = everything(database), state_of(tmp_path)
    arguments = [backup] if deed == "restore" else []
    with AtomicPostgreSQLBackend(locate(database)) as other, other.migration_lock():
        message = refused(deed, *arguments, "-d", with_option(database, "timeout=0.1"), folder=tmp_path)

    assert "another session is still migrating" in message
    assert (everything(database), state_of(tmp_path)) == before


def test_a_password_is_seen_by_nobody(
    database: str, tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes by the environment. pg_dump asks the server that was reached, whatever the variables say."""
    script = f"""printf '%s\\n' "$@" >'{tmp_path}/arguments'; env >'{tmp_path}/environment'
        exec '{programs}/pg_dump' "$@" """
    monkeypatch.setenv("PATH", fake(tmp_path / "bin", "pg_dump", script)["PATH"])
    with psycopg.connect(database) as connection:
        host, port, name, user = (getattr(connection.info, one) for one in ("host", "port", "dbname", "user"))
    services = tmp_path / "services"
    services.write_text(f"[ours]\nhost=/nowhere,{host}\nport={port}\ndbname=template1\n")
    for variable, text in {"PGSERVICEFILE": str(services), "PGSERVICE": "ours", "PGPASSWORD": "old"}.items():
        monkeypatch.setenv(variable, text)
    options = "keepalives_idle=77&sslmode=allow"
    back_up(f"postgresql://{user}:tell%20no-one@/{name}?{options}", tmp_path)

    assert "PGPASSWORD=tell no-one" in (tmp_path / "environment").read_text().splitlines()
    arguments = (tmp_path / "arguments").read_text()
    assert "tell" not in arguments
    (conninfo,) = re.findall("^--dbname=(.*)$", arguments, re.MULTILINE)
    assert {"sslmode=allow", "keepalives_idle=77", f"host={host}"} <= {*conninfo.split()}


def test_a_secret_without_a_variable_is_refused(database: str, tmp_path: Path) -> None:
    """No argument may hold it."""
    message = refused("backup", "-d", with_option(database, "sslpassword=secret"), folder=tmp_path)

    assert message == "other users could see sslpassword: connect without it"
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_nothing(database: str, tmp_path: Path) -> None:
    """It comes while pg_dump is at work, which ends with it."""
    work = tmp_path / "work"
    work.mkdir()
    # It prints more than a pipe holds, so somebody waits for it by then; who reads may overhear the first.
    script = f"echo $$ >'{tmp_path}/pid'; head -c 1000000 /dev/zero; while kill -INT $PPID; do sleep 1; done"
    environment = fake(tmp_path / "bin", "pg_dump", script)
    # Where it is ignored, as below nohup, the program would ignore it, too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        ran = in_child("backup", "-d", database, "-o", "monday.backup", folder=work, environment=environment)
    finally:
        signal.signal(signal.SIGINT, before)

    assert ran.code != 0
    assert "Traceback" not in ran.error
    assert list(work.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_storage_that_is_open_sees_what_was_restored(database: str, tmp_path: Path) -> None:
    """Its connections and prepared statements are of use as before."""
    backup = back_up(database, tmp_path)
    with get_pattern_storage(database) as storage:
        for number in range(10):
            storage.save_pattern(USER, "tilt", "after_bad_beat", number)
            storage.recall(USER)
        restore(backup, database, tmp_path)

        assert storage.get_pattern(USER, "tilt", "after_bad_beat") == "first"

        storage.save_pattern(USER, "tilt", "after_bad_beat", "second")

        assert storage.get_pattern(USER, "tilt", "after_bad_beat") == "second"


def test_a_transaction_from_before_never_sees_empty_tables(database: str, tmp_path: Path) -> None:
    """Its snapshot is older than the tables that it finds; it reads what was restored into them."""
    backup = back_up(database, tmp_path)
    with psycopg.connect(database) as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1")
        restore(backup, database, tmp_path)

        found = reader.execute("SELECT pattern_value::text FROM user_patterns").fetchall()

    assert found == [('"first"',)]


@pytest.fixture
def app(database: str) -> Iterator[Callable[[], int]]:
    """The app, writing and reading in a process of its own; call it to end it and see how often it did."""
    with subprocess.Popen(
        [sys.executable, "-c", APP, database],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout
        assert running.stdout.readline() == "ready\n"

        def end() -> int:
            out, error = running.communicate("end\n")

            assert (running.returncode, error) == (0, "")
            return int(out)

        yield end
        if running.poll() is None:
            running.kill()


def test_backups_are_made_and_restored_while_another_process_writes_and_reads(
    database: str, postgresql_url: str, app: Callable[[], int], tmp_path: Path
) -> None:
    """Each is of one moment; nobody is refused anything."""
    for number in range(3):
        backup = back_up(database, tmp_path, f"{number}.backup")
        restore(backup, postgresql_url, tmp_path)
        with get_pattern_storage(postgresql_url) as storage:
            one, other = (storage.get_pattern(USER, "count", key) for key in ("one", "other"))
        assert one == other is not None

        restore(backup, database, tmp_path)

    assert app() > 1
