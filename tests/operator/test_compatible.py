"""`-- compatible: true`: code goes on beside migrations that it does not know, and the claim is tested."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from poker_therapist import SchemaTooNew, get_pattern_storage
from poker_therapist.engines import engine_for
from poker_therapist.location import locate
from poker_therapist.migrations.rehearse import Rehearsal, Verdict, rehearse
from poker_therapist.postgresql import rehearsal
from poker_therapist.schema import copy, migrations_folder, shipped_ids
from tests.helpers.cli import command, refused
from tests.helpers.engines import columns, is_server, postgresql_only, query, run_sql
from tests.helpers.project import Project, ServerProject
from tests.helpers.queries import QUERIES_FILE
from tests.helpers.scripts import run_script

RELEASED = sorted((Path(__file__).parents[1] / "releases").glob("*/queries.sql"))
USER = 7
ADD = "ALTER TABLE user_patterns ADD COLUMN mood TEXT;"
DROP = "ALTER TABLE user_patterns DROP COLUMN mood;"
CLAIM = "-- compatible: true\n"
Newer = Callable[..., str]


@pytest.fixture
def project(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> Project:
    """A folder for migrations, and an up-to-date database."""
    if engine == "postgresql":
        return ServerProject(tmp_path / "project", request.getfixturevalue("migrated_postgresql_url"))
    project = Project(tmp_path / "project")
    shutil.copy(request.getfixturevalue("migrated_file"), project.database)
    return project


@pytest.fixture
def newer(engine: str, project: Project, request: pytest.FixtureRequest) -> Newer:
    """Return what applies, after the shipped migrations, one of a later version."""
    if engine == "postgresql":
        request.getfixturevalue("own_copies")
    shutil.copytree(migrations_folder(engine), project.sql, dirs_exist_ok=True)
    newest = sorted(shipped_ids(engine))

    def apply(header: str = CLAIM, code: str = ADD, back: str = DROP, name: str = "901_add_mood") -> str:
        project.write(name, f"-- Moods.\n-- depends: {newest[-1]}\n{header}{code}", back)
        newest.append(name)
        ran = project.yoyo("apply")
        assert ran.returncode == 0, ran.stderr
        return str(project.database)

    return apply


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return what gives the warnings of the package since it was asked before."""
    caplog.set_level(logging.WARNING, "poker_therapist")

    def listen() -> list[str]:
        messages = [one.getMessage() for one in caplog.records if one.name == "poker_therapist"]
        caplog.clear()
        return messages

    return listen


def test_code_goes_on_beside_a_compatible_migration_and_says_so_once(
    newer: Newer, heard: Callable[[], list[str]]
) -> None:
    """It reads, saves and forgets; a process is warned once of the same ids in the same database."""
    database = newer()
    for migrate in (True, False, True):
        with get_pattern_storage(database, migrate=migrate) as storage:
            storage.save_pattern(USER, "tilt", "bad_beat", {"a": 1})

            assert storage.get_pattern(USER, "tilt", "bad_beat") == {"a": 1}
    (warning,) = heard()
    assert "901_add_mood" in warning
    assert "-- compatible: true" in warning

    newer(code="CREATE INDEX moods ON user_patterns (mood);", back="DROP INDEX moods;", name="902_moods")
    with get_pattern_storage(database) as storage:
        assert storage.forget_user(USER)["user_patterns"] == 1
    assert ["901_add_mood, 902_moods" in one for one in heard()] == [True]


def test_going_on_imports_no_yoyo(newer: Newer) -> None:
    script = (
        "import logging, sys; logging.getLogger('poker_therapist').addHandler(logging.NullHandler()); "
        "from poker_therapist import get_pattern_storage; "
        "get_pattern_storage(sys.argv[1]).close(); print('yoyo' in sys.modules, "
        "'poker_therapist.migrations.files' in sys.modules)"
    )

    assert run_script(script, newer()) == ["False False"]


HEADERS = {
    "nothing said": "",
    "said to be false": "-- compatible: false\n",
    "said both ways": "-- compatible: true\n-- transactional: true\n-- compatible: maybe\n",
    "said to be true and then false": "-- compatible: true\n-- compatible: false\n",
    "below the first statement": "SELECT 1;\n-- compatible: true\n",
    "in a text": "SELECT '\n-- compatible: true\n';\n",
    "in a statement": "SELECT 1\n-- compatible: true\n;\n",
}


@pytest.mark.parametrize("migrate", [True, False])
@pytest.mark.parametrize("header", ["nothing said", "said to be false", "in a text"])
def test_what_does_not_say_it_in_its_header_is_refused(header: str, migrate: bool, newer: Newer) -> None:
    """And the message does not advise to destroy what the newer version has saved."""
    database = newer(HEADERS[header])
    with pytest.raises(SchemaTooNew, match="does not know 901_add_mood: update the code") as caught:
        get_pattern_storage(database, migrate=migrate)

    assert caught.value.unknown == ("901_add_mood",)
    assert "would delete what the newer version has saved" in str(caught.value)


@pytest.mark.parametrize("header", HEADERS)
def test_only_the_header_of_a_kept_text_counts(header: str, newer: Newer) -> None:
    """Whatever has been kept; of it nothing is run."""
    database = newer()
    text = f"{HEADERS[header]}DROP TABLE user_patterns;".replace("'", "''")
    run_sql(database, f"UPDATE _migration_text SET apply_sql = '{text}' WHERE migration_id = '901_add_mood'")
    with pytest.raises(SchemaTooNew):
        get_pattern_storage(database)

    assert "user_patterns" in columns(database)


@pytest.mark.parametrize(
    "header", ["-- Compatible: TRUE\n", "/* Why. */ -- x\n  --compatible:true\n", "\n\n-- compatible: true\n"]
)
def test_a_header_is_read_as_the_files_are(header: str, newer: Newer) -> None:
    get_pattern_storage(newer(header)).close()


def test_one_of_two_that_does_not_say_it_is_refused(newer: Newer) -> None:
    newer()
    database = newer("", "CREATE INDEX moods ON user_patterns (mood);", "DROP INDEX moods;", "902_moods")
    with pytest.raises(SchemaTooNew, match="901_add_mood, 902_moods"):
        get_pattern_storage(database)


def test_a_text_of_another_time_does_not_count(newer: Newer) -> None:
    """Plain yoyo has applied something else since, and keeps no text."""
    database = newer()
    run_sql(
        database, "UPDATE _yoyo_migration SET applied_at_utc = '2030-01-01' WHERE migration_id LIKE '901%'"
    )
    with pytest.raises(SchemaTooNew):
        get_pattern_storage(database)


@pytest.mark.parametrize("migrate", [True, False])
def test_nothing_is_applied_beside_what_is_not_known(
    migrate: bool, engine: str, project: Project, newer: Newer
) -> None:
    """Pending migrations of this version were never tried after those of another: update the code."""
    last = sorted(shipped_ids(engine))[-1]
    assert project.yoyo("rollback").returncode == 0
    for file in project.sql.glob(f"{last}*"):
        file.unlink()
    text = f"-- Moods.\n-- depends: {sorted(shipped_ids(engine))[-2]}\n{CLAIM}{ADD}"
    project.write("901_add_mood", text, DROP)
    assert project.yoyo("apply").returncode == 0
    before = project.applied()
    with pytest.raises(SchemaTooNew, match=f"lacks {last}. It also has 901_add_mood"):
        get_pattern_storage(str(project.database), migrate=migrate)

    for file in project.sql.glob("901*"):
        file.unlink()
    shutil.copytree(migrations_folder(engine), project.sql, dirs_exist_ok=True)
    said = f"lacks {last}. It also has 901_add_mood, which this version of the code does not know: update the"
    for call in ("apply", "rehearse", "plan"):
        ran = command(call, "-d", str(project.database), "--sources", "sql", folder=project.folder)
        assert (ran.code, said in ran.error) == (1, True)
    assert said in project.refuses("apply")
    assert "It also has 901_add_mood, which" in project.refuses("reapply", "-m", "001")
    assert project.applied() == before


def test_status_says_so_and_that_is_no_trouble(newer: Newer, tmp_path: Path) -> None:
    """An old version beside a new one pages nobody; what is not as it was applied does."""
    database = newer()
    ran = command("status", "--json", "-d", database, folder=tmp_path)
    (*_, last) = ran.json["migrations"]

    assert (ran.code, ran.json["state"], ran.json["drift"]) == (0, "up to date", [])
    assert (last["id"], last["state"]) == ("901_add_mood", "unknown")
    assert "is compatible with it" in last["note"]
    assert "is compatible with it" in command("status", "-d", database, folder=tmp_path).out

    run_sql(database, DROP)
    ran = command("status", "--json", "-d", database, folder=tmp_path)

    assert ran.code == 4
    assert [one["about"] for one in ran.json["drift"]] == ["column user_patterns.mood"]


def test_what_does_not_say_it_is_trouble(newer: Newer, tmp_path: Path) -> None:
    database = newer("")

    assert command("status", "-d", database, folder=tmp_path).code == 4
    assert command("apply", "-d", database, folder=tmp_path).lines[-1] == "nothing to apply"


def test_the_operator_s_commands_go_on_and_say_what_an_export_lacks(newer: Newer, tmp_path: Path) -> None:
    """A row that the newer version saved is forgotten whole."""
    database = newer()
    with get_pattern_storage(database) as storage:
        storage.save_pattern(USER, "tilt", "bad_beat", 1)
    run_sql(database, "UPDATE user_patterns SET mood = 'angry'")
    exported = command("export", str(USER), "-d", database, folder=tmp_path)

    assert exported.code == command("purge", "-d", database, folder=tmp_path).code == 0
    assert [one["key"] for one in exported.json["patterns"]] == ["bad_beat"]
    assert command("forget", str(USER), "--yes", "-d", database, folder=tmp_path).code == 0
    assert query(database, "SELECT count(*) FROM user_patterns") == [(0,)]


def test_a_copy_is_for_the_version_that_knows_all(newer: Newer, tmp_path: Path) -> None:
    """It would leave out what the others have added."""
    database = newer()
    with pytest.raises(SchemaTooNew, match="901_add_mood"):
        copy(locate(database), locate(tmp_path / "copy.db"))
    assert not (tmp_path / "copy.db").exists()
    get_pattern_storage(tmp_path / "copy.db").close()
    with pytest.raises(SchemaTooNew, match="901_add_mood"):
        copy(locate(tmp_path / "copy.db"), locate(database))


@pytest.mark.slow
@pytest.mark.parametrize("header", ["", CLAIM])
def test_a_backup_that_this_version_could_use_can_be_restored_by_it(
    header: str, newer: Newer, tmp_path: Path, programs: Path
) -> None:
    database = newer(header)
    if header:
        with get_pattern_storage(database) as storage:
            storage.save_pattern(USER, "tilt", "bad_beat", "x\ty")
    made = command("backup", "-d", database, folder=tmp_path)
    assert made.code == 0, made.error
    (file,) = made.lines
    if not header:
        assert "901_add_mood" in refused("restore", file, "-d", database, folder=tmp_path)
        return
    with get_pattern_storage(database) as storage:
        storage.save_pattern(USER, "tilt", "bad_beat", 2)
    restored = command("restore", file, "-d", database, folder=tmp_path)

    assert restored.code == 0, restored.error
    with get_pattern_storage(database) as storage:
        assert storage.get_pattern(USER, "tilt", "bad_beat") == "x\ty"
    assert "mood" in columns(database)["user_patterns"]


# What code that does not know it can bear ...
BEARABLE = {
    "sqlite": """
        ALTER TABLE user_patterns ADD COLUMN mood TEXT;
        ALTER TABLE user_patterns ADD COLUMN temper TEXT NOT NULL DEFAULT 'calm';
        CREATE INDEX by_confidence ON user_patterns (user_id, confidence);
        CREATE TABLE moods (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
        UPDATE user_patterns SET confidence = 0.5;
        CREATE UNIQUE INDEX by_mood ON user_patterns (user_id, mood);
        CREATE VIEW players AS SELECT user_id FROM user_patterns;
    """
}
BEARABLE["postgresql"] = f"{BEARABLE['sqlite']} ALTER TABLE user_patterns ADD CHECK (mood <> '');"
# ... and what not, with the reason: all of it in one migration, each of another kind.
UNBEARABLE = {
    "CREATE TABLE moods (id INTEGER PRIMARY KEY, User_Id BIGINT NOT NULL);": (
        "the new table moods has user_id"
    ),
    "CREATE UNIQUE INDEX one_of_each ON user_insights (user_id, insight_type);": (
        "a new unique key of user_insights on (user_id, insight_type) may reject"
    ),
    "ALTER TABLE user_insights DROP COLUMN insight_data;": (
        "the query save_insight cannot be prepared any more: "
    ),
    "ALTER TABLE user_patterns RENAME COLUMN confidence TO weight;": (
        "the query save_pattern cannot be prepared any more: "
    ),
}
UNBEARABLE_ON: dict[str, dict[str, str]] = {
    "sqlite": {
        """CREATE TABLE made (
            id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL, insight_type TEXT NOT NULL,
            insight_data TEXT NOT NULL, importance REAL, created_at TEXT, mood TEXT NOT NULL,
            CHECK (IMPORTANCE > 0.1)
        ) STRICT;
        DROP TABLE user_insights;
        ALTER TABLE made RENAME TO user_insights;""": "user_insights.mood requires a value",
        "-- In other letters.": "a new check of user_insights",
        **UNBEARABLE,
    },
    "postgresql": {
        "ALTER TABLE user_insights ENABLE ROW LEVEL SECURITY;": "user_insights is now row level security",
        "ALTER TABLE user_insights ADD EXCLUDE USING btree (user_id WITH =);": "the new constraint ",
        "ALTER TABLE user_insights ADD COLUMN mood TEXT NOT NULL;": "user_insights.mood requires a value",
        "ALTER TABLE conversation_context ALTER COLUMN created_at DROP DEFAULT;": (
            "conversation_context.created_at requires a value"
        ),
        "ALTER TABLE user_insights ALTER COLUMN importance TYPE NUMERIC;": (
            "user_insights.importance changes from double precision to numeric"
        ),
        "ALTER TABLE user_insights ADD CHECK (importance > 0.1);": "a new check of user_insights",
        """CREATE TABLE kinds (name TEXT PRIMARY KEY);
        ALTER TABLE user_insights ADD FOREIGN KEY (insight_type) REFERENCES kinds (name);""": (
            "a new foreign key of user_insights"
        ),
        **UNBEARABLE,
    },
}


@pytest.mark.parametrize("claim", [CLAIM, ""], ids=["promised", "not promised"])
def test_a_rehearsal_finds_what_code_that_does_not_know_it_could_not_bear(
    claim: str, engine: str, migrated: str, tmp_path: Path
) -> None:
    """Each query of this version that could be prepared before can be after it; and what a schema shows."""
    reasons = {why for why in UNBEARABLE_ON[engine].values() if claim}
    found = tried_after_all(migrated, tmp_path, claim + "\n".join(UNBEARABLE_ON[engine]))
    (one,) = found.migrations
    told = [said.lower() for said in one.broken_promises]

    assert one.verdict is Verdict.IRREVERSIBLE
    assert {why for why in reasons if any(why in said for said in told)} == reasons, told
    assert [said for said in told if not any(why in said for why in (*reasons, "cannot be prepared"))] == []
    assert bool(told) == bool(claim)
    assert not found.is_safe


def test_a_rehearsal_says_nothing_of_what_such_code_can_bear(
    engine: str, migrated: str, tmp_path: Path
) -> None:
    (one,) = tried_after_all(migrated, tmp_path, CLAIM + BEARABLE[engine]).migrations

    assert (one.verdict, one.broken_promises) == (Verdict.IRREVERSIBLE, [])


def tried_after_all(database: str, folder: Path, text: str) -> Rehearsal:
    """Rehearse a migration that comes after the shipped ones, and is not rolled back."""
    engine = "postgresql" if is_server(database) else "sqlite"
    shutil.copytree(migrations_folder(engine), folder / "sql")
    last = sorted(shipped_ids(engine))[-1]
    (folder / "sql/901_x.sql").write_text(f"-- depends: {last}\n{text}", encoding="utf-8")
    (folder / "sql/901_x.rollback.sql").write_text("-- Not tried.\nSELECT 1;", encoding="utf-8")
    return tried(database, str(folder / "sql"))


def test_a_query_of_a_later_migration_says_nothing_of_an_earlier_one(newer: Newer, tmp_path: Path) -> None:
    """What could not be prepared before a migration is not what that one breaks."""
    database = newer()
    queries = tmp_path / "queries.sql"
    queries.write_text(
        "-- name: days(user_id)\nSELECT mood, day FROM user_patterns WHERE user_id = :user_id;\n"
    )
    pairs = {
        "902_x": "CREATE INDEX moods ON user_patterns (mood);",
        "903_x": "ALTER TABLE user_patterns ADD COLUMN day TEXT;",
        "904_x": "ALTER TABLE user_patterns DROP COLUMN day;",
    }
    folder = tmp_path / "sql"
    folder.mkdir()
    for name, code in pairs.items():
        (folder / f"{name}.sql").write_text(f"{CLAIM}{code}")
        (folder / f"{name}.rollback.sql").write_text("SELECT 1;" if name == "904_x" else back_of(code))
    found = tried(database, str(folder), queries)

    assert [bool(one.broken_promises) for one in found.migrations] == [False, False, True]


def back_of(code: str) -> str:
    return "DROP INDEX moods;" if "INDEX" in code else "ALTER TABLE user_patterns DROP COLUMN day;"


def tried(database: str, folder: str, queries: Path = QUERIES_FILE, to: str | None = None) -> Rehearsal:
    """Rehearse the migrations of a folder on a copy of a database."""
    engine = engine_for(locate(database))
    return rehearse(engine, [folder], to=to, queries=[queries], owners=["user_id"])


@postgresql_only
def test_a_promise_is_tried_in_a_scratch_schema_too(
    newer: Newer, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where somebody is connected, and the server cannot copy the database."""
    database = newer()
    project.write(
        "902_x", f"-- depends: 901_add_mood\n{CLAIM}ALTER TABLE user_insights DROP COLUMN insight_data;"
    )
    monkeypatch.setattr(rehearsal, "_PATIENCE", 0)
    with psycopg.connect(database):
        found = tried(database, str(project.sql))

    assert found.fallback_reason
    assert "the query save_insight cannot be prepared" in "\n".join(found.migrations[0].broken_promises)


def test_the_command_says_what_breaks_the_promise(newer: Newer, project: Project, tmp_path: Path) -> None:
    """In words and for a program, with exit code 4."""
    database = newer()
    shutil.copytree(project.sql, tmp_path / "sql_migrations")
    (tmp_path / "sql_migrations" / "902_x.sql").write_text(
        f"-- depends: 901_add_mood\n{CLAIM}ALTER TABLE user_patterns RENAME COLUMN pattern_value TO said;"
    )
    (tmp_path / "sql_migrations" / "902_x.rollback.sql").write_text(
        "ALTER TABLE user_patterns RENAME COLUMN said TO pattern_value;"
    )
    found = tried(database, str(tmp_path / "sql_migrations"))
    (one,) = found.migrations

    assert (one.verdict, found.is_safe) == (Verdict.EXACT, False)
    assert "the query get_pattern cannot be prepared any more: " in "\n".join(one.broken_promises)
    assert "pattern_value" in "\n".join(one.broken_promises)


@pytest.mark.parametrize("queries", RELEASED, ids=lambda path: path.parent.name)
def test_the_last_release_goes_on_beside_every_migration_that_says_so(
    queries: Path, engine: str, database: str, request: pytest.FixtureRequest
) -> None:
    """Each of its queries can be prepared after each shipped migration that says `-- compatible: true`."""
    if engine == "postgresql":
        request.getfixturevalue("own_copies")
    if engine == "sqlite":
        Path(database).touch()
    found = tried(database, str(migrations_folder(engine)), queries)

    assert {one.id: one.broken_promises for one in found.migrations if one.broken_promises} == {}
    assert found.migrations[-1].id == sorted(shipped_ids(engine))[-1]


@pytest.mark.parametrize("queries", RELEASED, ids=lambda path: path.parent.name)
def test_every_query_of_the_last_release_can_be_prepared(
    queries: Path, migrated: str, request: pytest.FixtureRequest
) -> None:
    """Otherwise the test above would look at nothing."""
    with engine_for(locate(migrated)).rehearsal_copy({}) as work:
        assert work.refused_queries([queries, QUERIES_FILE]) == {}
        wrong = request.getfixturevalue("tmp_path") / "wrong.sql"
        wrong.write_text(
            "-- name: moods(user_id)\nSELECT mood FROM user_patterns WHERE user_id = :user_id;\n"
        )
        assert list(work.refused_queries([wrong])) == ["moods"]
