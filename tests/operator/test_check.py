"""`poker-therapist check`: all that is wrong with files of migrations, without a database."""

import hashlib
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.helpers.checkout import ROOT
from tests.helpers.cli import Result, command, program, refused
from tests.helpers.project import Project

FIRST = "-- Hands are kept.\nCREATE TABLE hands (id INTEGER PRIMARY KEY);\n"
SECOND = "-- Bets are kept.\n-- depends: 001_add_hands\nCREATE TABLE bets (id INTEGER);\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sound migrations for each engine, side by side."""
    for engine in ("sqlite", "postgresql"):
        _write(tmp_path / "sql_migrations" / engine, "001_add_hands", FIRST, "DROP TABLE hands;")
        _write(tmp_path / "sql_migrations" / engine, "002_add_bets", SECOND, "DROP TABLE bets;")
    return tmp_path


def _write(folder: Path, name: str, apply: str, rollback: str | None = "-- Nothing to undo.\n") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.sql").write_text(apply, encoding="utf-8")
    if rollback is not None:
        (folder / f"{name}.rollback.sql").write_text(rollback, encoding="utf-8")


def _check(folder: Path, *arguments: str) -> Result:
    return command("check", "sql_migrations/sqlite", *arguments, folder=folder)


def _said(folder: Path, *arguments: str, engine: str = "sqlite") -> list[str]:
    """Return what is said of an engine's files, of each without its folder."""
    ran = _check(folder, *arguments)
    place = f"sql_migrations/{engine}/"

    assert ran.error == ""
    assert ran.code == (4 if any(": note: " not in line for line in ran.lines if place in line) else ran.code)
    return [line.removeprefix(place) for line in ran.lines if line.startswith(place)]


def test_sound_migrations_pass(folder: Path) -> None:
    """No database is made or asked for; the twins are looked at without being named."""
    ran = _check(folder)

    assert (ran.code, ran.error) == (0, "")
    assert ran.lines == ["no problems in sql_migrations/sqlite, sql_migrations/postgresql"]
    assert _check(folder, "--json").json == {
        "folders": [str(folder / "sql_migrations" / name) for name in ("sqlite", "postgresql")],
        "ok": True,
        "findings": [],
    }
    assert not list(folder.rglob("*.db"))


def test_the_projects_own_migrations_pass() -> None:
    """By the ini file, from the checkout, as CI and the hook run it."""
    ran = program("check", folder=ROOT)

    assert (ran.code, ran.out) == (
        0,
        "no problems in sql_migrations/sqlite, sql_migrations/postgresql, sql_migrations/citus\n",
    )


FAULTS: dict[str, tuple[dict[str, str], list[str]]] = {
    "no rollback": (
        {"003_a_b.sql": "-- x\n-- depends: 002_add_bets\n"},
        ["003_a_b.sql: has no rollback: write 003_a_b.rollback.sql (a comment is enough)"],
    ),
    "rollback alone": (
        {"003_a_b.rollback.sql": "-- x\n"},
        ["003_a_b.rollback.sql: is a rollback script without an apply script: write 003_a_b.sql beside it"],
    ),
    "rollback misnamed": (
        {"002_add_bets_rollback.sql": "-- x\n"},
        [
            (
                "002_add_bets_rollback.sql: would be applied as a migration: rename the rollback script to "
                "002_add_bets.rollback.sql"
            )
        ],
    ),
    "rollback in capitals": (
        {"002_add_bets.Rollback.sql": "-- x\n"},
        [
            (
                "002_add_bets.Rollback.sql: would be applied as a migration: rename the rollback script to "
                "002_add_bets.rollback.sql"
            )
        ],
    ),
    "ending in capitals": (
        {"003_a_b.SQL": "-- x\n"},
        ["003_a_b.SQL: is ignored: the name must end with .sql in lower case; rename or delete it"],
    ),
    "another ending": (
        {"003_a_b.sql.bak": "-- x\n", "003_a_b.txt": "x"},
        [
            "003_a_b.sql.bak: is ignored: the name must end with .sql in lower case; rename or delete it",
            "003_a_b.txt: is ignored: the name must end with .sql in lower case; rename or delete it",
        ],
    ),
    "a page beside them": ({"README.md": "x", ".sqlfluff": "x", "notes.txt": "x"}, []),
    "python": ({"003_a_b.py": "x"}, ["003_a_b.py: is not SQL: write it as a pair of .sql files"]),
    "a subfolder": (
        {"old/003_a_b.sql": "-- x\n"},
        ["old/003_a_b.sql: is in a subfolder of sql_migrations/sqlite, which is not read: move it up"],
    ),
    "of macOS": (
        {"._001_add_hands.sql": "\0\1"},
        ["._001_add_hands.sql: note: is a hidden file, so it is ignored: delete it if it is not needed"],
    ),
    "empty": (
        {"002_add_bets.rollback.sql": " \n"},
        ["002_add_bets.rollback.sql: is empty: write a comment that explains why"],
    ),
    "not UTF-8": (
        {"002_add_bets.rollback.sql": "SELECT '\udcff';"},
        ["002_add_bets.rollback.sql: is not UTF-8 (byte 8): save it as UTF-8"],
    ),
    "transaction control": (
        {"001_add_hands.rollback.sql": "SELECT 1;\nCOMMIT;\nROLLBACK;"},
        [
            ("001_add_hands.rollback.sql:2: COMMIT would end the transaction of 001_add_hands: remove it"),
            ("001_add_hands.rollback.sql:3: ROLLBACK would end the transaction of 001_add_hands: remove it"),
        ],
    ),
    "in capitals": (
        {"002_add_bets.sql": "-- x\n-- Depends: 001_add_hands\nSELECT 1;"},
        ["002_add_bets.sql:2: note: `-- Depends:` is read as `-- depends:`, but not by plain yoyo"],
    ),
    "misspelt": (
        {"002_add_bets.sql": "-- x\n-- depend: 001_add_hands\n-- depends: 001_add_hands\nSELECT 1;"},
        ["002_add_bets.sql:2: `-- depend:` is not a directive: write `-- depends: 001_add_hands`"],
    ),
    "without its colon": (
        {"002_add_bets.sql": "-- transactional false\n-- depends: 001_add_hands\nSELECT 1;"},
        ["002_add_bets.sql:1: `-- transactional` is not a directive: write `-- transactional: false`"],
    ),
    "below": (
        {
            "002_add_bets.sql": "-- depends: 001_add_hands\nSELECT 1;\n-- Transactional: False\nSELECT 2\n"
            "-- compatible: true\n"
        },
        [
            (
                "002_add_bets.sql:3: `-- Transactional:` below the first statement has no effect: move "
                "`-- transactional: False` above it, or delete it"
            ),
            (
                "002_add_bets.sql:5: `-- compatible:` below the first statement has no effect: move "
                "`-- compatible: true` above it, or delete it"
            ),
        ],
    ),
    "neither true nor false": (
        {"002_add_bets.sql": "-- x\n-- compatible: ture\n-- depends: 001_add_hands\nSELECT 1;"},
        ["002_add_bets.sql:2: `-- compatible:` must be true or false"],
    ),
    "in the rollback": (
        {"002_add_bets.rollback.sql": "-- depends: 001_add_hands\n-- transactional: false\nVACUUM;"},
        [
            (
                "002_add_bets.rollback.sql:1: note: `-- depends:` has no effect in a rollback script: "
                "move it to 002_add_bets.sql"
            )
        ],
    ),
    "ordinary comments": (
        {
            "002_add_bets.sql": "-- Note: this depends on the order: of rows.\n-- depends: 001_add_hands\n"
            "-- Author: bob\n-- transactions: one for each\n-- Compatible with 0.1: it reads on.\n-- "
            "name: x\n"
            "-- noqa: disable=all\n-- depends on the order of 001\n-- date: 2026-01-05\n"
            "SELECT '\n-- transactional: false\n' AS \"a\";\n-- Compatible: as far as is known.\nSELECT (\n"
            "-- transaction: 1 of 2\n-- depends: 001_add_hands\n1);\n"
        },
        [],
    ),
    "a fork": (
        {
            "003_a_b.sql": "-- x\n-- depends: 002_add_bets\n",
            "003_a_b.rollback.sql": "-- x\n",
            "004_a_c.sql": "-- x\n-- depends: 002_add_bets\n",
            "004_a_c.rollback.sql": "-- x\n",
        },
        [
            (
                "004_a_c.sql: depends on 002_add_bets, as sql_migrations/sqlite/003_a_b.sql does: run "
                "`poker-therapist renumber 004_a_c --sources {root}/sql_migrations/sqlite` to give it the "
                "next number, or add `-- out-of-order: true` to its header"
            )
        ],
    ),
    "an accepted fork": (
        {
            "003_a_b.sql": "-- x\n-- depends: 002_add_bets\n",
            "003_a_b.rollback.sql": "-- x\n",
            "004_a_c.sql": "-- x\n-- out-of-order: true\n-- depends: 002_add_bets\n",
            "004_a_c.rollback.sql": "-- x\n",
        },
        [],
    ),
    "a number twice": (
        {"002_a_c.sql": "-- x\n-- depends: 002_add_bets\n", "002_a_c.rollback.sql": "-- x\n"},
        ["002_add_bets.sql: has the same number as 002_a_c.sql: give it the next number"],
    ),
    "a gap": (
        {"005_a_c.sql": "-- x\n-- depends: 002_add_bets\n", "005_a_c.rollback.sql": "-- x\n"},
        ["005_a_c.sql: comes after a gap: there is no 003; give it that number"],
    ),
    "dates have gaps": (
        {"20260105_a_c.sql": "-- x\n-- depends: 002_add_bets\n", "20260105_a_c.rollback.sql": "-- x\n"},
        [],
    ),
    "an unknown dependency": (
        {"002_add_bets.sql": "-- x\n-- depends: 009_z\nSELECT 1;"},
        ["002_add_bets.sql:2: depends on 009_z, which does not exist: correct its header"],
    ),
    "no dependency": (
        {"003_a_b.sql": "-- x\n", "003_a_b.rollback.sql": "-- x\n"},
        ["003_a_b.sql: has no dependency, but is not the first: add `-- depends: 002_add_bets`"],
    ),
    "no twin": (
        {"003_a_b.sql": "-- x\n-- depends: 002_add_bets\n", "003_a_b.rollback.sql": "-- x\n"},
        [
            (
                "003_a_b.sql: has no counterpart: "
                "write sql_migrations/postgresql/003_a_b.sql (a comment is enough)"
            )
        ],
    ),
    "a word of a rollback in a name": (
        {"003_hands_down.sql": "-- x\n-- depends: 002_add_bets\n", "003_hands_down.rollback.sql": "-- x\n"},
        [],
    ),
    "a backslash": (
        {"002_add_bets.rollback.sql": "SELECT 1;\nSELECT 'a\\';\nSELECT 'b';"},
        [
            (
                "002_add_bets.rollback.sql:2: plain yoyo would end this statement elsewhere, because it "
                "treats the backslash as an escape: write that character in another way"
            )
        ],
    ),
    "a comment without its end": (
        {
            "002_add_bets.sql": f"{SECOND}\n\n/* No end. /*\nCREATE TABLE lost (id INTEGER);",
            "002_add_bets.rollback.sql": "DROP TABLE bets; /* a */ -- the /* end\n",
        },
        [
            (
                "002_add_bets.sql:6: this comment is not closed, so the statements after it "
                "would not be run: close it"
            )
        ],
    ),
    "a text without its end": (
        {
            "002_add_bets.sql": f"{SECOND}INSERT INTO bets\nVALUES ('1);",
            "002_add_bets.rollback.sql": "DROP [b;",
        },
        [
            f"002_add_bets{half}: this statement is incomplete: look for a quote, a bracket or an END "
            "that is missing"
            for half in (".rollback.sql:1", ".sql:4")
        ],
    ),
    "a folder with the name of a file": (
        {"003_a_b.sql/x.txt": ""},
        ["003_a_b.sql: is a folder, so it is ignored: rename it"],
    ),
    "a percent sign": ({"002_add_bets.rollback.sql": "SELECT 1 % 2, '%s';"}, []),
    "psql's": (
        {"002_add_bets.rollback.sql": "\\connect game\n\nSELECT 1;"},
        ["002_add_bets.rollback.sql:1: \\connect is a command of psql, not SQL: remove it"],
    ),
    "sqlite3's": (
        {"002_add_bets.rollback.sql": "SELECT 1;\n.mode csv\n"},
        ["002_add_bets.rollback.sql:2: .mode is a command of sqlite3, not SQL: remove it"],
    ),
    "no transaction may hold it": (
        {"002_add_bets.rollback.sql": "SELECT 1;\n-- so\nVACUUM;\nPRAGMA foreign_keys = OFF;"},
        [
            (
                "002_add_bets.rollback.sql:3: VACUUM cannot run in a transaction: move it to a separate "
                "migration with `-- transactional: false` in its header"
            ),
            (
                "002_add_bets.rollback.sql:4: note: this has no effect in a transaction: delete it. "
                "Foreign keys are off while "
                "a migration runs, and are checked at its end"
            ),
        ],
    ),
    "not filled in": (
        {"002_add_bets.rollback.sql": "-- Why this change, in a sentence or two.\n"},
        ["002_add_bets.rollback.sql:1: is an unfilled template: write why this change is made"],
    ),
}


@pytest.mark.parametrize(("files", "says"), FAULTS.values(), ids=FAULTS)
def test_each_fault_is_named_with_its_file_and_what_to_do(
    files: dict[str, str], says: list[str], folder: Path
) -> None:
    """All faults, each once; what else may be wrong with a new file is not what this is about."""
    for name, text in files.items():
        path = folder / "sql_migrations" / "sqlite" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode(errors="surrogateescape"))
    about_twins = any("has no counterpart" in line for line in says)
    of = {line.partition(":")[0] for line in says}
    said = [line.replace(str(folder), "{root}") for line in _said(folder)]
    said = [line for line in said if about_twins or "has no counterpart" not in line]

    assert [line for line in said if not of or line.partition(":")[0] in of] == says


def test_what_is_no_file_is_not_read(folder: Path) -> None:
    """A pipe would be waited for; a link may lead nowhere."""
    place = folder / "sql_migrations" / "sqlite"
    (place / "002_add_bets.rollback.sql").unlink()
    os.mkfifo(place / "002_add_bets.rollback.sql")
    (place / "003_a_b.sql").symlink_to(place / "nowhere.sql")
    nothing = "is not a file, or is a broken link: delete it, or restore its target"

    assert _said(folder) == [
        f"002_add_bets.rollback.sql: {nothing}",
        "002_add_bets.sql: has no rollback: write 002_add_bets.rollback.sql (a comment is enough)",
        f"003_a_b.sql: {nothing}",
    ]


def test_the_other_engine_has_faults_of_its_own(folder: Path) -> None:
    """CONCURRENTLY in a transaction; a dollar quote is no end of a statement."""
    _write(
        folder / "sql_migrations" / "postgresql",
        "002_add_bets",
        "-- x\n-- depends: 001_add_hands\nCREATE INDEX\n/* why */ CONCURRENTLY a ON hands (id);\n"
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1; COMMIT; $$;",
    )

    _write(
        folder / "sql_migrations" / "postgresql",
        "001_add_hands",
        "-- x\n-- transactional: false\nVACUUM;\ncopy hands FROM stdin;\n1\n\\.\n;"
        "SELECT '\\x' \\gexec;\nSELECT $a$ $b$",
    )

    assert _said(folder, engine="postgresql") == [
        "001_add_hands.sql:4: COPY with STDIN or STDOUT cannot run in an SQL file: use INSERT",
        "001_add_hands.sql:7: \\gexec is a command of psql, not SQL: remove it",
        "001_add_hands.sql:8: what begins with this $ is not closed: close it",
        (
            "002_add_bets.sql:3: CREATE INDEX CONCURRENTLY cannot run in a transaction: move it to a "
            "separate migration with `-- transactional: false` in its header"
        ),
    ]


def test_what_apply_would_refuse_too(project: Project) -> None:
    """A directive below the first statement, or misspelt, is not silently ignored any more."""
    project.write("001_add_hands", "CREATE TABLE hands (id INTEGER);\n-- transactional: false\n")
    message = project.refuses("apply")

    assert "sql/001_add_hands.sql:2: `-- transactional:` below the first statement has no effect" in message
    project.write("001_add_hands", "-- Compatable: true\nCREATE TABLE hands (id INTEGER);")
    assert "write `-- compatible: true`" in project.refuses("apply")
    project.write("001_add_hands", "CREATE TABLE hands (id INTEGER);\n/* x\nCREATE TABLE bets (id INTEGER);")
    assert "sql/001_add_hands.sql:2: this comment is not closed" in project.refuses("apply")
    project.write("001_add_hands", "CREATE TABLE hands (id INTEGER);", "-- x\nDROP \0TABLE hands;")
    assert "sql/001_add_hands.rollback.sql:2: contains a NUL character" in project.refuses("apply")
    assert project.is_untouched()
    project.write("001_add_hands", "-- Note: a table.\nCREATE TABLE hands (id INTEGER);")
    assert project.yoyo("apply").returncode == 0
    project.write("001_add_hands", "-- Note: a table.\nCREATE TABLE hands (id INTEGER);\n-- depends: 001_a\n")
    assert "has been edited since" in project.refuses("apply")


def test_an_applied_file_with_such_a_comment_can_still_be_rolled_back(project: Project) -> None:
    """An earlier version of the code applied it."""
    project.write(
        "001_add_hands",
        "-- Compatible: true or false\nCREATE TABLE hands (id INTEGER);",
        "DROP TABLE hands; /* the end",
    )
    project.run_sql("CREATE TABLE hands (id INTEGER);")
    assert project.yoyo("mark").returncode == 0
    ran = project.yoyo("rollback")

    assert (ran.returncode, project.tables()) == (0, [])


@pytest.mark.parametrize("whole", ["apply", "rollback"])
def test_a_rollback_says_for_itself_whether_a_transaction_holds_it(whole: str, project: Project) -> None:
    """What fails in its middle is kept where no transaction holds it, and undone where one does."""
    apply = "CREATE TABLE hands (id INTEGER);" if whole == "apply" else "-- transactional: false\nSELECT 1;"
    said = "false" if whole == "apply" else "true"
    project.write(
        "001_add_hands", apply, f"-- transactional: {said}\nCREATE TABLE left_over (id INT);\nNONSENSE;"
    )
    assert project.yoyo("apply").returncode == 0
    before = project.tables()
    message = project.refuses("rollback")

    assert (project.tables() == before) == (whole == "rollback")
    assert ("All changes of 001_add_hands were undone" in message) == (whole == "rollback")


def test_a_released_file_may_not_change(folder: Path) -> None:
    """By the list beside the folders; ends of lines of Windows are no change."""
    place = folder / "sql_migrations"
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(place).as_posix()}"
        for path in sorted(place.rglob("*.sql"))
    ]
    (place / "released.sha256").write_text("\n".join(lines) + "\n")
    path = place / "sqlite" / "001_add_hands.sql"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert _check(folder).code == 0

    path.write_text(FIRST.replace("Hands", "hands"))
    (place / "postgresql" / "002_add_bets.rollback.sql").unlink()
    said = _check(folder).lines

    assert (
        "sql_migrations/sqlite/001_add_hands.sql: has been edited since its release: restore it, and "
        "write the "
        "change as a new migration"
    ) in said
    assert any(
        "002_add_bets.rollback.sql: is listed in " in line and "missing: restore it" in line for line in said
    )


@pytest.fixture
def committed(folder: Path) -> Path:
    """The two migrations, committed and tagged v1."""
    _git(folder, "init", "--quiet")
    _git(folder, "add", ".")
    _git(folder, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "--quiet", "-m", "x")
    _git(folder, "tag", "v1")
    return folder


def _git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True)


def test_a_file_may_not_change_since_a_commit(committed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a hook, which git gives variables of its own; a new file is no change."""
    monkeypatch.setenv("GIT_DIR", ".git")
    monkeypatch.setenv("GIT_INDEX_FILE", ".git/index")
    place = committed / "sql_migrations"
    for engine in ("sqlite", "postgresql"):
        _write(place / engine, "003_add_moods", "-- Moods.\n-- depends: 002_add_bets\nSELECT 1;")
    (place / "sqlite" / "001_add_hands.sql").write_bytes(FIRST.replace("\n", " \r\n").encode())
    assert _check(committed, "--since", "v1").code == 0

    (place / "sqlite" / "001_add_hands.sql").write_text(FIRST + "SELECT 1;\n")
    for path in place.glob("*/002_add_bets*"):
        path.unlink()
    said = _check(committed, "--since", "v1").lines

    assert (
        "sql_migrations/sqlite/001_add_hands.sql: has been edited since v1: restore it, and write a new "
        "migration"
    ) in said
    gone = [line for line in said if line.endswith("existed at v1, but is missing: restore it")]
    assert len(gone) == 4


@pytest.mark.parametrize("since", ["v9", "--output=x", "v1\n", ""])
def test_a_commit_that_is_none_is_one_message(since: str, committed: Path) -> None:
    message = refused("check", "sql_migrations/sqlite", f"--since={since}", folder=committed)

    assert "name one" in message or "git cannot read " in message
    assert not (committed / "x").exists()


def test_a_file_that_the_system_cannot_read_is_one_message(folder: Path) -> None:
    """Here a link to memory, of which the first byte cannot be read; root may read what others may not."""
    file = folder / "sql_migrations" / "postgresql" / "001_add_hands.sql"
    file.unlink()
    file.symlink_to("/proc/self/mem")
    (said,) = _check(folder).lines

    assert said == (
        "sql_migrations/postgresql/001_add_hands.sql: cannot be read (Input/output error): correct its "
        "permissions, or restore it"
    )


@pytest.mark.parametrize("text", [b"\xff", b"-- Hands.\n-- transactional: maybe\nSELECT 1;"])
def test_what_cannot_be_read_is_there_for_what_depends_on_it(text: bytes, folder: Path) -> None:
    """One finding is not made three: its twin and the one after it are sound."""
    (folder / "sql_migrations" / "postgresql" / "001_add_hands.sql").write_bytes(text)
    (said,) = _check(folder).lines

    assert said.startswith("sql_migrations/postgresql/001_add_hands.sql:")
    assert said.endswith((": is not UTF-8 (byte 0): save it as UTF-8", "must be true or false"))


def test_what_depends_on_nothing_that_is_there_is_one_finding(folder: Path) -> None:
    """What depends on that is sound."""
    path = folder / "sql_migrations" / "sqlite" / "001_add_hands.sql"
    path.write_text(f"-- depends: 000_gone\n{FIRST}")

    assert _said(folder) == [
        "001_add_hands.sql:1: depends on 000_gone, which does not exist: correct its header"
    ]


def test_hidden_files_are_ignored_by_all(project: Project) -> None:
    """As `check` says of them: macOS writes one beside each file on a disk of another system."""
    project.write("001_add_hands", "CREATE TABLE hands (id INTEGER);", "DROP TABLE hands;")
    for name in ("001_add_hands", "001_add_hands.rollback", "009_none"):
        (project.sql / f"._{name}.sql").write_bytes(b"\0\5\26\7\xff")

    assert project.yoyo("apply").stdout.splitlines()[-1] == "applied 001_add_hands"
    for words in (("list",), ("status",), ("plan", "--rollback"), ("rehearse",)):
        ran = command(*words, "-d", project.database, "--sources", "sql", folder=project.folder)
        assert ran.code == 0
        assert "._" not in ran.out
    assert command("new", "add bets", "--sources", "sql", folder=project.folder).code == 0
    assert "already has the next number" in command(
        *("renumber", "002_add_bets", "-d", project.database, "--sources", "sql"), folder=project.folder
    ).out  # fmt: skip


def test_a_folder_that_is_none_is_one_message(tmp_path: Path) -> None:
    assert (
        refused("check", "nowhere", folder=tmp_path) == "there is no folder nowhere: name one with migrations"
    )


def test_the_ini_file_names_the_folder(folder: Path) -> None:
    """As for every command; a folder of another name is judged as the database's engine would."""
    (folder / "sql_migrations" / "sqlite").rename(folder / "my migrations")
    (folder / "yoyo.ini").write_text(
        "[DEFAULT]\nsources = %(here)s/my migrations\ndatabase = postgresql+atomic://\n"
    )
    _write(folder / "my migrations", "001_add_hands", FIRST + "SELECT $$;COMMIT;$$;", "VACUUM;")
    ran = command("check", folder=folder)

    assert (ran.code, ran.lines) == (
        4,
        [
            (
                "my migrations/001_add_hands.rollback.sql:1: VACUUM cannot run in a transaction: move it to "
                "a separate migration with `-- transactional: false` in its header"
            )
        ],
    )


def test_the_hook_of_pre_commit_runs_this_command(folder: Path) -> None:
    """Its entry, as it stands, finds a fault; the pattern fits names of migrations, however they end."""
    hook = (ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8")
    fields = dict(re.findall(r"^(?:- |  )(\w+): (.*)$", hook, re.MULTILINE))
    _write(folder / "sql_migrations" / "sqlite", "003_a_b", "", None)
    program_name, *arguments = shlex.split(fields["entry"])

    assert (program_name, fields["language"], fields["pass_filenames"]) == (
        "poker-therapist",
        "python",
        "false",
    )
    assert all(re.search(fields["files"], name) for name in ("sql/001_a.sql", "sql/001_A.SQL"))
    (folder / "yoyo.ini").write_text("[DEFAULT]\nsources = sql_migrations/sqlite\n")
    ran = program(*arguments, folder=folder)
    assert ran.code == 4
    assert "sql_migrations/sqlite/003_a_b.sql: is empty" in ran.out


def test_folders_of_one_engine_are_judged_together(tmp_path: Path) -> None:
    """As `apply` does: a number in one fills a gap in another, and one may depend on another."""
    _write(tmp_path / "m", "001_add_hands", FIRST, "DROP TABLE hands;")
    _write(tmp_path / "m", "002_add_bets", SECOND, "DROP TABLE bets;")
    for number, before in ((3, "002_add_bets"), (10, "003_z"), (12, "010_z")):
        _write(tmp_path / "m2", f"{number:03}_z", f"-- depends: {before}\nSELECT 1;")
    _write(tmp_path / "m", "011_y", "-- depends: 010_z\nSELECT 1;")
    (tmp_path / "yoyo.ini").write_text("[DEFAULT]\nsources = m m2\ndatabase = sqlite+atomic:///x.db\n")

    assert command("apply", folder=tmp_path).code == 0
    ran = command("check", folder=tmp_path)
    assert ran.lines == ["m2/010_z.sql: comes after a gap: there is no 004; give it that number"]
    _write(tmp_path / "m2", "002_add_bets", SECOND)
    ran = command("check", folder=tmp_path)
    assert "m/002_add_bets.sql: has the same id as m2/002_add_bets.sql: rename one of them" in ran.lines


def test_a_number_that_a_header_accepts_is_a_note(folder: Path) -> None:
    """As the advice about a fork says."""
    for engine in ("sqlite", "postgresql"):
        header = "-- depends: 001_add_hands\n-- out-of-order: true\n"
        _write(folder / "sql_migrations" / engine, "002_b", f"{header}SELECT 1;")

    ran = _check(folder)
    assert (ran.code, len(ran.lines)) == (0, 3)
    assert "sql_migrations/sqlite/002_b.sql: note: has the same number as 002_add_bets.sql" in ran.lines


def test_a_file_of_either_engine_is_sound_where_nobody_says_which(tmp_path: Path) -> None:
    """A body of PostgreSQL's in a folder of any name, and a trigger of SQLite's; not what neither takes."""
    body = "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$\nBEGIN\n  RETURN 1;\nEND;\n$$;\n"
    trigger = "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END;\n"
    _write(tmp_path / "m", "001_a", body)
    _write(tmp_path / "m", "002_b", f"-- depends: 001_a\n{trigger}")
    assert [line for line in command("check", "m", folder=tmp_path).lines if ": note: " not in line] == [
        "no problems in m"
    ]

    _write(tmp_path / "m", "003_c", "-- depends: 002_b\nSELECT 1;\nCOMMIT;")
    ran = command("check", "m", folder=tmp_path)
    assert ran.code == 4
    assert any(line.startswith("m/003_c.sql:3: COMMIT would end") for line in ran.lines)
