"""docs/benchmarks.md, made from results.json and from nothing else."""

import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.results import Results

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
OURS, BEFORE = "poker_therapist", "raw on the schema of 004"
SHORT = {OURS: "ours"}
WIDTH = 110
KINDS = {"process": "processes", "thread": "threads"}
YOYO, YOYO_WITH_LOCK, BY_HAND = "yoyo, its check", "yoyo, as documented", "by hand"
ENGINES = {"SQLite": "sqlite", "PostgreSQL": "postgresql"}
WORK_NAMES = {
    "save_pattern": "upsert of a pattern",
    "get_pattern": "point read",
    "save_context": "append of context",
    "get_context": "newest 20",
}
_MANY_NAMES = {"save_patterns": "`save_patterns`", "save_contexts": "`save_contexts`"}
_BULK_NAMES = {
    **{work: f"{name} in one `transaction()`" for work, name in WORK_NAMES.items()},
    **_MANY_NAMES,
}

_WHAT = (
    "What the storage costs, beside the least that its work can cost and beside what one would take "
    "instead. This page and its pictures are made by `make bench`; every number comes from "
    "[`results.json`](../benchmarks/results.json), and [`benchmarks/`](../benchmarks/__main__.py) is "
    "all of the code."
)

_HOW = (
    "Every figure is a ratio of two times that were measured in one run, never a time by itself: a "
    "slower machine slows both. (One aim is a time, and is told as one.) The arms of a comparison take "
    "turns, each repetition begins with another one, and what stands here is the median of the "
    "repetitions' ratios, with the lowest and the highest in brackets. After the timed part each arm's "
    "database is opened again and asked whether all of the work is in it."
)

_LIMIT = (
    "The limit is what one would write by hand: the same schema, statements and settings, one kept "
    "connection, `json` to write and read values, and the same refusal of what JSON would not give back "
    "equal. Above 1.00 means that the storage reads JSON quicker than `json.loads` does, and not that it is "
    "quicker than the driver beneath it."
)

_ARMS = {
    "SQLite": (
        "*connection per call* is the app's earlier version, which connected and committed with "
        "SQLite's defaults. LangGraph's `SqliteStore` is measured as documented, and on a connection "
        "with a write-ahead log; it keeps times to the second, so it does not know which of two rows "
        "of one second is the newer, and is asked only whether they are the player's. It has one "
        "index beside its key, where our tables have up to four and check what they are given: that "
        "is part of the limit, too. SQLAlchemy and peewee work on our tables with our settings of "
        "SQLite: Core with its upsert, the ORM with a session for each call that finds an object and "
        "changes it or adds one, peewee with its models. diskcache has neither tables nor lists: a "
        "conversation is a counter and numbered keys. The two arms that wait for the disk at each commit "
        "are timed for a fifth of the writes, having been given the rest."
    ),
    "PostgreSQL": (
        "Raw is one psycopg connection with one cursor, each statement prepared. LangGraph's "
        "`PostgresStore` and SQLAlchemy Core over psycopg are as documented. The server is on the "
        "same machine, over a Unix socket, and does not wait for its disk (`fsync` and "
        "`synchronous_commit` are off): so the part of the client, which is what differs, is as "
        "large as it can be."
    ),
}

_RIVALS_HAVE = (
    "What rivals have and the storage has not: LangGraph searches by meaning and lists "
    "namespaces; SQLAlchemy and peewee query whatever one likes; diskcache evicts; alembic and dbmate know "
    "more engines."
)

_OPENING = (
    "A database that is up to date is opened: how long each tool takes to find out that there is "
    "nothing to do, as a multiple of the storage's time. *Imports counted in* is a process from its "
    "start to its end; dbmate is a program by itself and has only that. yoyo's check is `to_apply` "
    "alone; *as documented* is what its documentation shows for a program's start, with a lock, "
    "which writes. The least that any program must do is to connect and ask with one SELECT; *by hand* is "
    "the least that the storage's promises cost: its settings on the connection, a look at the folder, and "
    "the SELECT."
)

_WHY_MORE = (
    "Why raw itself takes so much longer on SQLite: rows at random are in no cache of the processor. With "
    "all pages in SQLite's own memory, so that none is read from a file, raw's point read still takes {0} "
    "times as long as with the fewest rows. A write at random changes pages that no other changes, and each "
    "is once written to the database and waited for: the arm that waits for no disk shows the rest."
)

_WHY_PAGES = (
    "An append on SQLite costs what its pages cost, each of which is copied into the write-ahead log with a "
    "checksum. So many pages are written for one: {0}. Ours are the table's, one of each index on key, "
    "session and player, and that of the highest id ever given (`AUTOINCREMENT`), without which the id of a "
    "deleted row would be given again. Each index serves a query that LangGraph's store does not have."
)

_AT_ONCE = (
    "{calls:,} calls, shared among processes or threads: of a hundred, 60 are point reads, 15 reads of the "
    "newest 20, 15 upserts, 5 appends, and 5 read a count and write the next one in a block. Beside raw with "
    "the same settings, which counts in `BEGIN IMMEDIATE` on SQLite and with `FOR UPDATE` on PostgreSQL. Of "
    "throughput more is better, of latency less."
)

_TASKS = (
    "The same calls from asyncio tasks, beside the synchronous storage in as many threads, whose throughput "
    "is 1. *asyncio.to_thread* is that storage, each call in a thread of asyncio's. The drivers have a pool, "
    "4 connections of aiosqlite's and 10 of psycopg's, with our statements and settings. With one task at a "
    "time the way to a thread and back is most of a short call on SQLite. A call in the loop's own thread "
    "would be without it, and would keep the loop waiting for a lock or a disk."
)

_NOT_MEASURED = (
    "Machines with more cores, other disks, a server over a network, Citus, anything but Linux with CPython.",
    (
        "A disk that has to be waited for: SQLite runs with `synchronous = NORMAL`, which does not wait "
        "at each commit, and the server with `fsync` off. Otherwise all arms would wait for the same "
        "disk, and the shares would come closer to 1. The SQLite arms with the default journal do wait."
    ),
    "Rivals in other languages, and rivals' own ways of writing in bulk.",
    "Insights, `recall`, `export_user` and `forget_user`: no rival has their like.",
    "A database that does not fit into memory.",
)


def text(results: Results) -> str:
    """Return the page."""
    return "\n".join(_lines(results)).rstrip() + "\n"


def _lines(results: Results) -> Iterator[str]:
    yield from ("# Benchmarks", "")
    yield from _prose(_WHAT)
    yield from _prose(_HOW)
    yield from ("## What was aimed at", "")
    yield from _table(("aim", "measured", "reached"), _aims(results))
    measured = {
        engine: results[f"rivals_{key}"] for engine, key in ENGINES.items() if f"rivals_{key}" in results
    }
    if measured:
        yield from _rivals(measured)
    if part := results.get("opening_sqlite"):
        yield from _opening(part, results.get("opening_postgresql"))
    yield from _growth(results)
    yield from _moving(results)
    yield from _concurrency(results)
    yield from _many_tasks(results)
    yield from ("## Not measured", "")
    for item in _NOT_MEASURED:
        yield textwrap.fill(f"- {item}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    yield ""
    yield from _environment(results)


def show(found: dict[str, Any]) -> str:
    """Return a ratio and its spread."""
    return f"{found['median']:.2f} ({found['min']:.2f} to {found['max']:.2f})"


def _prose(paragraph: str) -> tuple[str, str]:
    """Return a paragraph in lines, and a blank one."""
    return textwrap.fill(paragraph, WIDTH, break_long_words=False, break_on_hyphens=False), ""


def _table(head: Iterable[str], rows: Iterable[str]) -> Iterator[str]:
    head = list(head)
    yield _row(*head)
    yield "|---" * len(head) + "|"
    yield from rows
    yield ""


def _row(*cells: object) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def _verdict(reached: bool) -> str:
    return "yes" if reached else "**no**"


def _aims(results: Results) -> Iterator[str]:
    """Yield a row for each aim whose part was measured."""
    for engine, key in ENGINES.items():
        if part := results.get(f"rivals_{key}"):
            shares = {WORK_NAMES[work]: by_arm[OURS]["median"] for work, by_arm in part["shares"].items()}
            listed = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
            yield _row(
                f"{engine}: 0.95 of raw on each of the four works",
                listed,
                _verdict(min(shares.values()) >= 0.95),
            )
            yield from _rival_aims(engine, part)
    if part := results.get("start_up"):
        yield from _start_up_aims(part)
    if part := results.get("opening_sqlite"):
        yield from _opening_aims(part)
    for engine, key in ENGINES.items():
        if part := results.get(f"growth_{key}"):
            yield from _growth_aims(engine, part)
    if part := results.get("upgrade"):
        time, memory = part["time_by_raw"]["median"], part["memory_by_few_rows"]["median"]
        worst = part["time_by_raw_without_users"]["median"]
        yield _row(
            f"upgrade of {part['rows']:,} old rows: at most 1.3 times the statements alone",
            f"{time:.2f}; {worst:.2f} where each row lacks the parent that it names",
            _verdict(time <= 1.3),
        )
        yield _row(
            f"its memory is flat: at most 1.5 times that of {part['few_rows']:,} rows",
            f"{memory:.2f}",
            _verdict(memory <= 1.5),
        )
    if part := results.get("rehearsal"):
        yield from _rehearsal_aims(part)
    if part := results.get("copy"):
        copied = part["time_by"]["raw"]["median"]
        yield _row(
            f"`copy` of {part['rows']:,} rows: at most 1.7 times reading and COPY alone",
            f"{copied:.2f}",
            _verdict(copied <= 1.7),
        )
    for engine, key in ENGINES.items():
        if part := results.get(f"concurrency_{key}"):
            errors = sum(part[kind]["errors"][OURS] for kind in ("processes", "threads"))
            lost = sum(part[kind]["lost_updates"][OURS] for kind in ("processes", "threads"))
            yield _row(
                f"{engine}: many at once without an error or a lost update",
                f"{errors} errors, {lost} lost",
                _verdict(errors == lost == 0),
            )

    yield from _task_aims(results)


def _task_aims(results: Results) -> Iterator[str]:
    for engine, key in ENGINES.items():
        if part := results.get(f"asyncio_{key}"):
            shares = {number: found[OURS]["throughput"]["median"] for number, found in part["tasks"].items()}
            yield _row(
                f"{engine}: 0.7 of the throughput of as many threads with {', '.join(shares)} asyncio tasks",
                ", ".join(f"{share:.2f}" for share in shares.values()),
                _verdict(min(shares.values()) >= 0.7),
            )


def _rivals_of(part: dict[str, Any], work: str) -> dict[str, float]:
    """Return the shares of what is neither ours nor raw."""
    shares = part["shares"][work].items()
    return {arm: found["median"] for arm, found in shares if arm not in (OURS, BEFORE, part["limit"])}


def _rival_aims(engine: str, part: dict[str, Any]) -> Iterator[str]:
    ahead = {}
    for work, by_arm in part["shares"].items():
        rivals = _rivals_of(part, work)
        best = max(rivals, key=lambda arm: rivals[arm])
        ahead[f"{WORK_NAMES[work]} {{:.2f}} ({best})"] = by_arm[OURS]["median"] / rivals[best]
    yield _row(
        f"{engine}: at least 1.15 times as fast as every rival on every work",
        ", ".join(name.format(times) for name, times in ahead.items()),
        _verdict(min(ahead.values()) >= 1.15),
    )
    times = {work: found["median"] for work, found in part["by_before"].items()}
    aims = {"save_context": 1.4, "save_pattern": 1.5, "get_context": 0.95}
    yield _row(
        f"{engine}: on the schema of 005 beside raw on that of 004, append 1.4 times as fast, upsert 1.5 "
        "times, newest 20 not slower",
        ", ".join(f"{WORK_NAMES[work]} {times[work]:.2f}" for work in aims),
        _verdict(all(times[work] >= aim for work, aim in aims.items())),
    )


def _start_up_aims(part: dict[str, Any]) -> Iterator[str]:
    taken = part["import_milliseconds"]["median"]
    yield _row(
        "`import poker_therapist`: at most 45 ms of processor time beyond Python's own start",
        f"{taken:.0f} ms",
        _verdict(taken <= 45),
    )
    shares = {name: found["median"] for name, found in part["by_yoyo_list"].items()}
    yield _row(
        "`poker-therapist status`, and printing the version: at most 1.5 times the processor time of "
        "`yoyo list`",
        ", ".join(f"{name} {share:.2f}" for name, share in shares.items()),
        _verdict(max(shares.values()) <= 1.5),
    )


def _rehearsal_aims(part: dict[str, Any]) -> Iterator[str]:
    by_apply, status = part["time_by_apply"]["median"], part["status_seconds"]["median"]
    yield _row(
        f"rehearsal of the upgrade of {part['rows']:,} old rows: at most 3 times as long as applying",
        f"{by_apply:.2f} (beside the statements alone {part['time_by_raw']['median']:.2f})",
        _verdict(by_apply <= 3),
    )
    yield _row(
        f"`status` of {part['rows']:,} rows: under a second",
        f"{status:.2f} s",
        _verdict(status < 1),
    )


def _opening_aims(part: dict[str, Any]) -> Iterator[str]:
    counts = part["counts"]
    beyond = {count: found["milliseconds_beyond_connecting"]["median"] for count, found in counts.items()}
    yield _row(
        "opening: under 1 ms beyond connecting",
        ", ".join(f"{taken:.2f} ms with {count} migrations" for count, taken in beyond.items()),
        _verdict(max(beyond.values()) < 1),
    )
    less = {
        count: [found["beyond_connecting"][yoyo]["median"] for yoyo in (YOYO_WITH_LOCK, YOYO)]
        for count, found in counts.items()
    }
    yield _row(
        "opening: 50 times less than yoyo takes, as its documentation opens, beyond connecting",
        ", ".join(
            f"{start:.0f} times with {count} migrations (its check alone: {check:.0f})"
            for count, (start, check) in less.items()
        ),
        _verdict(min(start for start, _ in less.values()) >= 50),
    )
    leaves = all(found["nothing_written"] and found["yoyo_not_imported"] for found in counts.values())
    yield _row(
        "opening writes no byte and does not import yoyo",
        "files, hashes and times as before" if leaves else "not so",
        _verdict(leaves),
    )
    few, many = counts
    yield _row(
        f"opening is flat: {many} migrations at most 1.5 times {few}",
        show(part["many_by_few"]),
        _verdict(part["many_by_few"]["median"] <= 1.5),
    )


def _growth_aims(engine: str, part: dict[str, Any]) -> Iterator[str]:
    ours, raw = part["latency_by_rows"]["ours"], part["latency_by_rows"]["raw"]
    few, *_, many = next(iter(ours.values()))
    yield _row(
        f"{engine}: from {int(few):,} rows to {int(many):,}, the latency grows at most 1.05 times as raw's",
        ", ".join(
            f"{WORK_NAMES[work]} {ours[work][many]['median']:.2f} (raw {raw[work][many]['median']:.2f})"
            for work in ours
        ),
        _verdict(max(ours[work][many]["median"] / raw[work][many]["median"] for work in ours) <= 1.05),
    )
    busy = {WORK_NAMES[work]: more["median"] for work, more in part["busy_player"].items()}
    yield _row(
        f"{engine}: a player with {part['busy_rows']:,} contexts costs at most 1.1 times one with 100",
        ", ".join(f"{name} {more:.2f}" for name, more in busy.items()),
        _verdict(max(busy.values()) <= 1.1),
    )
    for how, names, least in (
        ("in one `transaction()`", WORK_NAMES, 0.8),
        ("in one call", _MANY_NAMES, 0.95),
    ):
        bulk = {names[work]: share["median"] for work, share in part["bulk"].items() if work in names}
        if bulk:
            yield _row(
                f"{engine}: bulk writing {how} at least {least} of raw `executemany`",
                ", ".join(f"{name} {share:.2f}" for name, share in bulk.items()),
                _verdict(min(bulk.values()) >= least),
            )


def _rivals(parts: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield from ("## Beside its limit and its rivals", "")
    load = next(iter(parts.values()))["load"]
    yield from _prose(
        f"The work: {load['writes']:,} upserts of a pattern of 100 players and {load['writes']:,} "
        f"appends of context, one commit each and values of about 235 bytes; {load['reads']:,} point "
        f"reads at random; {load['looks']:,} reads of a player's newest 20. Each repetition has fresh "
        "databases. The figures are shares of the limit's speed: less is slower."
    )
    yield from _prose(_LIMIT)
    for engine, part in parts.items():
        yield from (f"### On {engine}", "")
        yield from _prose(_ARMS[engine])
        yield from _table(
            ("arm", *(WORK_NAMES[work] for work in part["shares"])),
            (_arm(arm, part) for arm in next(iter(part["shares"].values()))),
        )
    if len(parts) == len(ENGINES):
        yield from ("![Shares of the limit, by arm and work](benchmarks-shares.svg)", "")
    yield from ("### Where a rival is better", "")
    better = [
        f"- {engine}, {WORK_NAMES[work]}: {arm} {share:.2f}, ours {by_arm[OURS]['median']:.2f}."
        for engine, part in parts.items()
        for work, by_arm in part["shares"].items()
        for arm, share in _rivals_of(part, work).items()
        if share > by_arm[OURS]["median"]
    ]
    yield from better or ["In none of the four works is a rival quicker."]
    yield ""
    if better and (pages := parts.get("SQLite", {}).get("pages_per_append")):
        counts = ", ".join(f"{arm} {count:.0f}" for arm, count in pages.items())
        yield from _prose(_WHY_PAGES.format(counts))
    yield from _prose(_RIVALS_HAVE)


def _arm(arm: str, part: dict[str, Any]) -> str:
    if arm == part["limit"]:
        return _row(f"{arm}, the limit", *("1.00" for _ in part["shares"]))
    name = f"**{arm}**" if arm == OURS else arm
    return _row(name, *(show(by_arm[arm]) for by_arm in part["shares"].values()))


def _opening(part: dict[str, Any], server: dict[str, Any] | None) -> Iterator[str]:
    yield from ("## Opening", "")
    yield from _prose(_OPENING)
    columns = {
        f"{count} migrations, imports {how}": found[f"imports_{how.replace(' ', '_')}"]
        for count, found in part["counts"].items()
        for how in ("left out", "counted in")
    }
    tools = dict.fromkeys(tool for column in columns.values() for tool in column)
    yield from _table(
        ("tool", *columns),
        (
            _row(tool, *(show(column[tool]) if tool in column else "" for column in columns.values()))
            for tool in tools
        ),
    )
    beyond = {count: found["beyond_connecting"] for count, found in part["counts"].items()}
    if any(found[YOYO_WITH_LOCK]["median"] < 50 for found in beyond.values()):
        by_hand = ", ".join(
            f"{found[yoyo]['median'] / found[BY_HAND]['median']:.0f} ({yoyo}, {count} migrations)"
            for count, found in beyond.items()
            for yoyo in (YOYO_WITH_LOCK, YOYO)
        )
        yield from _prose(
            "Why it is not fifty times less than yoyo's: beyond connecting, yoyo takes so many times as "
            f"long as *by hand*: {by_hand}. What is left between *by hand* and the storage is Python."
        )
    if server:
        left_out = server["imports_left_out"]
        yield from _prose(
            "On PostgreSQL, with our own migrations, connecting and one SELECT take "
            f"{show(left_out['connect and SELECT'])} of the storage's time, and yoyo's check "
            f"{show(left_out[YOYO])} times as long. Beyond connecting, the storage takes "
            f"{server['milliseconds_beyond_connecting']['median']:.2f} ms."
        )


def _growth(results: Results) -> Iterator[str]:
    parts = {
        engine: results[f"growth_{key}"] for engine, key in ENGINES.items() if f"growth_{key}" in results
    }
    if not parts:
        return
    yield from ("## Growth", "")
    yield from _prose(
        "The latency of the four works on players at random, as a multiple of that at the fewest "
        "rows. So many rows are in each of the two tables, a hundred of each player; what they hold "
        "is small. Beside it raw, on the same databases: what a bigger one costs by itself. All of them fit "
        "into memory: SQLite's files into the system's, PostgreSQL's into the quarter of all memory that the "
        "server has for itself."
    )
    for engine, part in parts.items():
        latencies = part["latency_by_rows"]
        _, middle, most = next(iter(latencies["ours"].values()))
        columns = [("ours", middle), *((arm, most) for arm in latencies)]
        yield from _table(
            (
                engine,
                *(f"{arm}: {int(rows):,} rows" for arm, rows in columns),
                f"ours as a share of raw: {int(most):,} rows",
            ),
            (
                _row(
                    WORK_NAMES[work],
                    *(show(latencies[arm][work][rows]) for arm, rows in columns),
                    show(part["share_of_raw"][work][most]),
                )
                for work in latencies["ours"]
            ),
        )
        if "point_read_in_cache" in part and latencies["raw"]["get_pattern"][most]["median"] > 1.5:
            yield from _prose(_WHY_MORE.format(show(part["point_read_in_cache"])))
    if len(parts) == len(ENGINES):
        yield from ("![Latency against rows](benchmarks-growth.svg)", "")
    one = next(iter(parts.values()))
    rows = [
        _row(
            f"{WORK_NAMES[work]} of a player with {one['busy_rows']:,} contexts: "
            "latency as a multiple of that with 100",
            *(show(part["busy_player"][work]) for part in parts.values()),
        )
        for work in one["busy_player"]
    ]
    rows += [
        _row(
            f"{one['bulk_rows']:,} times {_BULK_NAMES[work]}: speed as a share of raw `executemany`",
            *(show(part["bulk"][work]) for part in parts.values()),
        )
        for work in one["bulk"]
    ]
    yield from _table(("", *parts), rows)


def _moving(results: Results) -> Iterator[str]:
    if part := results.get("upgrade"):
        yield from _prose(
            f"An old database of {part['rows']:,} rows is migrated when it is opened: that makes a "
            "backup, runs the migrations, keeps their texts and checks the rows: "
            f"{show(part['time_by_raw'])} times as long as the same statements run by `sqlite3` "
            f"alone, and {show(part['time_by_raw_without_users'])} times where no player has a row in the "
            "app's `users`, so that each row lacks its parent, before and after. At its peak it has "
            f"{show(part['memory_by_few_rows'])} times the memory of the "
            f"same with {part['few_rows']:,} rows, and {part['memory_by_raw']:.2f} times that of the "
            "statements alone."
        )
    if part := results.get("rehearsal"):
        yield from _prose(
            f"A rehearsal of that upgrade takes {show(part['time_by_apply'])} times as long as the upgrade, "
            "for it copies the database, applies, rolls back and applies again, which is three times the "
            "work, and compares every row with what it was. "
            f"`status` of the upgraded database takes {show(part['status_by_few_rows'])} times as long as "
            f"with {part['few_rows']:,} rows. Through 005 the file shrinks to {part['file_by_before']:.2f} "
            "of what it is under 004, both without free pages."
        )
    if copied := results.get("copy"):
        pgloader = copied["time_by"].get("pgloader")
        yield from _prose(
            f"`poker-therapist copy` of {copied['rows']:,} rows from SQLite to PostgreSQL takes "
            f"{show(copied['time_by']['raw'])} times as long as reading them and COPY alone"
            + (f", and {show(pgloader)} times as long as `pgloader` {copied['pgloader']}" if pgloader else "")
            + ": it reads every row back and compares it with what was read from the source."
        )


def _concurrency(results: Results) -> Iterator[str]:
    parts = {
        engine: results[f"concurrency_{key}"]
        for engine, key in ENGINES.items()
        if f"concurrency_{key}" in results
    }
    if not parts:
        return
    yield from ("## Many at once", "")
    yield from _prose(_AT_ONCE.format(calls=next(iter(parts.values()))["processes"]["calls"]))
    for engine, part in parts.items():
        yield from _table(
            (engine, "throughput by raw", "p50 latency by raw", "p99 latency by raw"),
            (
                _row(
                    f"{workers} {one if workers == '1' else many}",
                    *(show(found[what]) for what in ("throughput", "p50", "p99")),
                )
                for one, many in KINDS.items()
                for workers, found in part[many]["workers"].items()
            ),
        )
        told = [
            f"with {kind} ours had {part[kind]['errors'][OURS]} errors and lost "
            f"{part[kind]['lost_updates'][OURS]} updates, raw {part[kind]['errors']['raw']} and "
            f"{part[kind]['lost_updates']['raw']}"
            for kind in KINDS.values()
        ]
        yield from _prose(f"In all runs {'; '.join(told)}.")
    if len(parts) == len(ENGINES):
        yield from ("![Throughput against writers](benchmarks-concurrency.svg)", "")


def _many_tasks(results: Results) -> Iterator[str]:
    parts = {
        engine: results[f"asyncio_{key}"] for engine, key in ENGINES.items() if f"asyncio_{key}" in results
    }
    if not parts:
        return
    yield from ("## asyncio", "")
    yield from _prose(_TASKS)
    for engine, part in parts.items():
        arms = list(next(iter(part["tasks"].values())))
        yield from _table(
            (engine, *(f"{SHORT.get(arm, arm)}: throughput" for arm in arms), "ours: p99 latency by threads"),
            (
                _row(
                    f"{number} task{'s' * (number != '1')}",
                    *(show(found[arm]["throughput"]) for arm in arms),
                    show(found[OURS]["p99"]),
                )
                for number, found in part["tasks"].items()
            ),
        )
        said = (
            f"{SHORT.get(arm, arm)} {part['errors'][arm]} and {part['lost_updates'][arm]}" for arm in arms
        )
        yield from _prose(f"Errors and lost updates in all runs: {', '.join(said)}.")


def _environment(results: Results) -> Iterator[str]:
    """Say what all of it was measured on: the same for every part, or each by itself."""
    yield "## Measured on"
    yield ""
    by_machine: dict[str, list[str]] = {}
    for part, found in results.items():
        on = found["measured_on"]
        versions = ", ".join(f"{name} {version}" for name, version in on["versions"].items())
        line = f"{on['cores']} cores, {on['memory_gb']} GB of memory, {on['system']}; {versions}."
        by_machine.setdefault(line, []).append(part)
    for line, parts in by_machine.items():
        yield from _prose(line if len(by_machine) == 1 else f"{', '.join(parts)}: {line}")
    if servers := sorted({found["server"] for found in results.values() if "server" in found}):
        yield from _prose(f"The server: PostgreSQL {', '.join(servers)}.")
