"""SQLite: where yoyo alone is silently wrong or stops in the middle, and ours not; files, backups."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from poker_therapist import get_pattern_storage
from tests.helpers import old_app, snapshots
from tests.helpers.migrating import FOLDER, IDS, YOYO, yoyo_command
from tests.helpers.project import Project
from tests.helpers.rights import run_without_privileges, skip_unless_rights_count


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project."""
    return Project(tmp_path / "project")


@pytest.mark.parametrize("command", ["list", "rollback", "unmark", "mark"])
def test_a_mistyped_database_path_creates_nothing(command: str, two_migrations: Project) -> None:
    """Plain yoyo makes an empty database, even to list; ours says that there is none."""
    assert two_migrations.plain_yoyo("list").returncode == 0
    assert two_migrations.database.exists()

    two_migrations.database.unlink()
    result = two_migrations.yoyo(command)

    assert f"there is no database {two_migrations.database}" in result.stderr
    assert "Traceback" not in result.stderr
    assert (result.returncode == 0) == (command == "list")
    assert not list(two_migrations.folder.glob("game.db*"))


def test_listing_changes_no_byte(two_migrations: Project) -> None:
    """Plain yoyo writes when it lists; ours leaves bytes and modification time as they were."""
    assert two_migrations.yoyo("apply").returncode == 0
    before = two_migrations.database.read_bytes(), two_migrations.database.stat().st_mtime_ns
    listed = two_migrations.yoyo("list")

    assert (two_migrations.database.read_bytes(), two_migrations.database.stat().st_mtime_ns) == before
    assert listed.stdout.count("\nA ") == 2
    assert sorted(file.name for file in two_migrations.folder.iterdir()) == ["game.db", "sql"]

    two_migrations.plain_yoyo("list")

    assert (two_migrations.database.read_bytes(), two_migrations.database.stat().st_mtime_ns) != before


@pytest.mark.parametrize("name", ["with space", "with [brackets]", "a*b?", "naïve ♠"])
def test_a_checkout_may_stand_in_any_folder(name: str, tmp_path: Path) -> None:
    """Plain yoyo splits the setting at blanks and globs it, finds nothing, and says that all is well."""
    checkout = tmp_path / name.replace("?", "")
    (checkout / "sql_migrations").mkdir(parents=True)
    shutil.copytree(FOLDER, checkout / "sql_migrations" / "sqlite")
    ini = (FOLDER.parents[1] / "yoyo.ini").read_text(encoding="utf-8")
    (checkout / "yoyo.ini").write_text(ini.replace("sqlite+atomic", "sqlite"), encoding="utf-8")
    plain = yoyo_command("apply", folder=checkout)
    (checkout / "yoyo.ini").write_text(ini, encoding="utf-8")
    (checkout / "RexVoice.db").unlink(missing_ok=True)
    ours = yoyo_command("apply", folder=checkout / "sql_migrations")

    assert ours.returncode == 0, ours.stderr
    assert snapshots.applied(checkout / "RexVoice.db") == IDS
    if "naïve" not in name:
        assert plain.returncode == 0
        assert "001" not in plain.stdout


REBUILD = """
-- depends: 001_add_hands
CREATE TABLE new_hands (id INTEGER PRIMARY KEY, note TEXT);
INSERT INTO new_hands (id) SELECT id FROM hands;
DROP TABLE hands;
ALTER TABLE new_hands RENAME TO hands;
"""
PARENT_AND_CHILDREN = """
CREATE TABLE hands (id INTEGER PRIMARY KEY);
CREATE TABLE bets (id INTEGER PRIMARY KEY, hand INTEGER REFERENCES hands (id) ON DELETE CASCADE);
INSERT INTO hands VALUES (1), (2);
INSERT INTO bets VALUES (1, 1), (2, 1), (3, 2);
"""


def test_rebuilding_a_parent_loses_no_child(project: Project) -> None:
    """With foreign keys on, dropping the old parent deletes its children: first as plain SQLite does it."""
    with sqlite3.connect(":memory:", isolation_level=None) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.executescript(PARENT_AND_CHILDREN + REBUILD)
        assert connection.execute("SELECT count(*) FROM bets").fetchone() == (0,)
    connection.close()

    project.write("001_add_hands", PARENT_AND_CHILDREN)
    project.write("002_add_note", REBUILD)

    assert project.yoyo("apply").returncode == 0
    assert snapshots.rows(project.database)["bets"] == [(1, 1), (2, 1), (3, 2)]


@pytest.mark.parametrize("direction", ["apply", "rollback"])
def test_a_new_violation_of_a_foreign_key_is_refused(direction: str, project: Project) -> None:
    """Plain yoyo checks nothing; ours names table, row and parent. Violations from before may stay."""
    harm = "-- depends: 001_add_hands\nDELETE FROM hands WHERE id = 2;"
    apply, rollback = (harm, "SELECT 1;") if direction == "apply" else ("SELECT 1;", harm)
    project.write("001_add_hands", PARENT_AND_CHILDREN + "INSERT INTO bets VALUES (9, 99);")
    with snapshots.connect(project.database) as connection:
        connection.executescript(PARENT_AND_CHILDREN + "INSERT INTO bets VALUES (9, 99);")
    assert project.yoyo("mark").returncode == 0
    project.write("002_harm", "-- depends: 001_add_hands\n" + apply, rollback)
    if direction == "rollback":
        assert project.yoyo("apply").returncode == 0
    before = snapshots.everything(project.database)
    message = project.refuses(direction)

    assert "row 3 of bets would violate its foreign key to hands" in message
    assert snapshots.everything(project.database) == before
    assert project.plain_yoyo(direction).returncode == 0


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"001_a": "-- depends: 002_b\n", "002_b": "-- depends: 001_a\n"}, "circular dependency: 00"),
        ({"001_a": "-- depends: 009_z\n"}, "sql/001_a.sql depends on 009_z, which does not exist"),
        ({"001_a": "-- transactional: maybe\n"}, "must be true or false"),
    ],
    ids=["circle", "unknown", "directive"],
)
@pytest.mark.parametrize("command", ["apply", "list", "rollback"])
def test_files_that_contradict_each_other_are_refused(
    files: dict[str, str], says: str, command: str, project: Project
) -> None:
    """One message, whatever the command."""
    for name, text in files.items():
        project.write(name, text + "SELECT 1;")

    assert says in project.refuses(command)


def test_the_same_id_in_two_sources_is_refused(project: Project) -> None:
    """Both files are named."""
    project.write("001_a", "SELECT 1;")
    shutil.copytree(project.sql, project.folder / "more")
    message = project.refuses("apply", sources=["sql", "more"])

    assert "sql/001_a.sql" in message
    assert "more/001_a.sql" in message


def test_a_file_that_is_not_utf_8_is_refused(project: Project) -> None:
    """With the file, and the byte."""
    project.write("001_a", "SELECT 1;").write_bytes("SELECT 'naïve';".encode("latin-1"))

    assert "sql/001_a.sql is not UTF-8 (byte 10)" in project.refuses("apply")


def test_half_a_pair_is_refused(project: Project) -> None:
    """A rollback whose migration was renamed would never run."""
    project.write("001_a", "SELECT 1;")
    (project.sql / "001_a.sql").rename(project.sql / "001_b.sql")

    assert "sql/001_a.rollback.sql is a rollback script" in project.refuses("apply")


def test_a_migration_in_python_is_refused(project: Project) -> None:
    """Schema changes are SQL."""
    project.write("001_a", "SELECT 1;")
    (project.sql / "002_b.py").write_text("steps = []")

    assert "sql/002_b.py is not SQL" in project.refuses("apply")


def test_a_locked_database_says_so(two_migrations: Project) -> None:
    """After the time that the URL gives."""
    with snapshots.connect(two_migrations.database) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE mine (id INTEGER)")

        assert "is still locked after 0.1 seconds" in two_migrations.refuses("apply", options="?timeout=0.1")


@pytest.mark.parametrize("command", ["apply", "list", "rollback", "mark", "unmark", "reapply"])
def test_a_file_that_is_no_database_says_so(command: str, two_migrations: Project) -> None:
    """And stays as it is."""
    two_migrations.database.write_text("a letter to Ann " * 1000)

    assert f"{two_migrations.database} is not an SQLite database" in two_migrations.refuses(command)
    assert two_migrations.database.read_text() == "a letter to Ann " * 1000


@pytest.mark.parametrize(
    ("database", "says"),
    [("", "is a folder"), ("nowhere/game.db", "there is no folder"), ("sql", "is a folder")],
)
def test_a_path_that_cannot_be_a_database_says_so(database: str, says: str, two_migrations: Project) -> None:
    """A folder, or a file in a folder that is not there."""
    two_migrations.database = two_migrations.folder / database

    assert says in two_migrations.refuses("apply")


def test_a_damaged_database_is_not_changed(two_migrations: Project) -> None:
    """The backup before the first change is checked, and fails."""
    with snapshots.connect(two_migrations.database) as connection:
        connection.execute("CREATE TABLE notes (text TEXT)")
        connection.executemany("INSERT INTO notes VALUES (?)", [("x" * 300,)] * 500)
    content = bytearray(two_migrations.database.read_bytes())
    content[4096 * 5 : 4096 * 5 + 2000] = b"\xff" * 2000
    two_migrations.database.write_bytes(content)

    assert "damaged" in two_migrations.refuses("apply")
    assert two_migrations.database.read_bytes() == content


def test_a_read_only_database_is_listed_and_not_changed(
    project: Project, report: Callable[[str], None]
) -> None:
    """By a user who may write neither the file nor its folder."""
    skip_unless_rights_count(report)
    project.write("001_add_hands", "CREATE TABLE hands (id INTEGER);", "DROP TABLE hands;")
    assert project.yoyo("apply").returncode == 0
    project.write("002_add_bets", "CREATE TABLE bets (id INTEGER);", "DROP TABLE bets;")
    before = project.database.read_bytes(), project.database.stat().st_mtime_ns
    url = f"sqlite+atomic:///{project.database}"
    project.database.chmod(0o444)
    project.folder.chmod(0o555)
    try:
        listed, refused = (
            run_without_privileges(
                [*YOYO, command, "--no-config-file", "--batch", "--database", url, "sql"], project.folder
            )
            for command in ("list", "apply")
        )
    finally:
        project.folder.chmod(0o755)

    assert (listed.returncode, listed.stderr) == (0, "")
    assert "A         001_add_hands" in listed.stdout
    assert refused.returncode == 1
    assert "is not writable" in refused.stderr
    assert (project.database.read_bytes(), project.database.stat().st_mtime_ns) == before


HARD = """-- A comment; with semicolons; and 'quotes
CREATE TABLE spots (name TEXT, note TEXT DEFAULT ';', "odd;name" TEXT); -- after it; too
/* a block;
   comment */
INSERT INTO spots (name, note) VALUES ('a;b', '$1 %s %(x)s :name ? ''quoted''; --no comment');
CREATE TRIGGER spots_noted AFTER INSERT ON spots WHEN new.note IS NULL
BEGIN
    UPDATE spots SET note = CASE WHEN new.name = 'x;' THEN 'end;' ELSE 'END' END WHERE name = new.name;
    INSERT INTO spots (name, note) VALUES ('from the trigger;', '');
END;
CREATE VIEW noted AS SELECT name FROM spots WHERE note <> ';';
;;
INSERT INTO spots (name) VALUES ('back\\slash\\');
INSERT INTO spots (name, note) VALUES ('x;', NULL)"""


def test_statements_are_split_where_sqlite_says(project: Project) -> None:
    """Triggers, views, comments with semicolons, $ and % and : and ? in literals, no semicolon at the end."""
    project.write("001_add_spots", HARD, "DROP VIEW noted;\nDROP TABLE spots;")
    result = project.yoyo("apply")

    assert result.returncode == 0, result.stderr
    assert snapshots.rows(project.database)["spots"] == sorted(
        [
            ("a;b", "$1 %s %(x)s :name ? 'quoted'; --no comment", None),
            ("back\\slash\\", ";", None),
            ("x;", "end;", None),
            ("from the trigger;", "", None),
        ],
        key=repr,
    )
    assert project.yoyo("rollback").returncode == 0
    assert project.tables() == []


def test_a_backup_is_made_before_the_first_change_of_a_run(project: Project) -> None:
    """One a run, of the state before it, named by what it precedes; none of an empty database."""
    project.write("001_add_hands", "CREATE TABLE hands (id INTEGER);", "DROP TABLE hands;")
    project.write("002_add_bets", "CREATE TABLE bets (id INTEGER);", "DROP TABLE bets;")

    assert "backup:" not in project.yoyo("apply").stdout
    assert list(project.folder.glob("*.backup")) == []

    with snapshots.connect(project.database) as connection:
        connection.execute("INSERT INTO hands VALUES (7)")
    before = snapshots.everything(project.database)
    output = project.yoyo("rollback", "--all").stdout
    (backup,) = project.folder.glob("*.backup")

    assert f"backup: {backup}\nrolled back 002_add_bets\n" in output
    assert ".before-rollback-002_add_bets.backup" in backup.name
    assert backup.stat().st_mode & 0o777 == project.database.stat().st_mode & 0o777
    assert snapshots.everything(backup) == before
    assert "backup:" not in project.yoyo("rollback", "--all").stdout


@pytest.mark.parametrize(("options", "left"), [("", 5), ("?backups=2", 2), ("?backups=0", 0)])
def test_the_newest_backups_are_kept(options: str, left: int, project: Project) -> None:
    """Five, or as many as the URL says; other files stay."""
    project.write("001_add_hands", "CREATE TABLE hands (id INTEGER);", "DROP TABLE hands;")
    other = project.folder / "game.db.mine.backup"
    other.write_text("mine")
    with snapshots.connect(project.database) as connection:
        connection.execute("CREATE TABLE notes AS SELECT 1 AS one")
    for _ in range(4):
        assert project.yoyo("apply", options=options).returncode == 0
        assert project.yoyo("rollback", options=options).returncode == 0
    backups = sorted(project.folder.glob("*.before-*.backup"))

    assert len(backups) == left
    assert other.read_text() == "mine"
    if backups:
        assert "rollback" in backups[-1].name


def test_the_library_logs_where_the_backup_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What the command prints, an app finds in its log."""
    path = tmp_path / "RexVoice.db"
    old_app.make(path)
    with caplog.at_level("INFO", logger="poker_therapist.migrations"):
        get_pattern_storage(path).close()
    (backup,) = tmp_path.glob("*.backup")

    assert f"backup: {backup}" in caplog.messages
    assert f"applied {IDS[-1]}" in caplog.messages


# What cannot stand in a transaction.
OUTSIDE = {
    "another database": "ATTACH ':memory:' AS other;",
    "temporary files": "PRAGMA temp_store = MEMORY;",
    "no writing": "PRAGMA query_only = ON;",
}
SETTINGS = {
    "no checks": "PRAGMA ignore_check_constraints = ON;",
    "no keys": "PRAGMA foreign_keys = OFF;",
    "keys later": "PRAGMA defer_foreign_keys = ON;",
    "recursive triggers": "PRAGMA recursive_triggers = ON;",
    "a cache": "PRAGMA cache_size = 7;",
    "another LIKE": "PRAGMA case_sensitive_like = ON;",
    "a schema to be written": "PRAGMA writable_schema = ON;",
    "a temporary table": "CREATE TEMP TABLE held (id INTEGER);",
    "a temporary table over a table": "CREATE TEMP TABLE hands AS SELECT 7 AS other;",
    "a temporary view over a table": "CREATE TEMP VIEW hands AS SELECT 7 AS id;",
    "a temporary trigger": "CREATE TEMP TRIGGER t AFTER INSERT ON hands BEGIN DELETE FROM hands; END;",
    **OUTSIDE,
}
SEEN = [
    "(SELECT * FROM pragma_ignore_check_constraints)",
    "(SELECT * FROM pragma_foreign_keys)",
    "(SELECT * FROM pragma_defer_foreign_keys)",
    "(SELECT * FROM pragma_recursive_triggers)",
    "(SELECT * FROM pragma_temp_store)",
    "(SELECT * FROM pragma_cache_size)",
    "(SELECT * FROM pragma_writable_schema)",
    "'a' LIKE 'A'",
    # Our own check of foreign keys notes something there.
    "(SELECT group_concat(name) FROM sqlite_temp_schema WHERE name <> 'noted_violation')",
    "(SELECT max(name NOT IN ('main', 'temp')) FROM pragma_database_list)",
    "(SELECT count(*) FROM hands)",
]


@pytest.mark.parametrize("transactional", ["true", "false"])
def test_what_a_migration_sets_for_its_connection_ends_with_it(transactional: str, tmp_path: Path) -> None:
    """The next begins as if it were the first, in the same run of any command."""
    project = Project(tmp_path / "project")
    columns = ", ".join(f"c{number}" for number in range(len(SEEN)))
    project.run_sql(f"CREATE TABLE hands (id INTEGER); CREATE TABLE seen ({columns}, after);")
    headers = {
        name: f"-- transactional: {'false' if name in OUTSIDE else transactional}\n" for name in SETTINGS
    }
    changes = {name: (headers[name], f"{text}\nSELECT 1;") for name, text in SETTINGS.items()}
    written = project.write_changes(changes, f"INSERT INTO seen SELECT {', '.join(SEEN)}, '{{}}';")

    for command in (("apply",), ("rollback", "--all"), ("apply",), ("reapply", "--all")):
        result = project.yoyo(*command)
        assert result.returncode == 0, result.stderr
    assert project.applied() == written
    first, *others = project.query("SELECT * FROM seen ORDER BY rowid")
    assert len(others) + 1 == 5 * (len(changes) + 1)
    assert {row[-1] for row in others if row[:-1] != first[:-1]} == set()
