"""docs/benchmarks.md, made from results.json and from nothing else."""

import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
_NAMES = dict(zip(WORK_NAMES, ("upsert", "read", "append", "newest 20"), strict=True))
_MANY_NAMES = {"save_patterns": "`save_patterns`", "save_contexts": "`save_contexts`"}
_BULK_NAMES = {
    **{work: f"{name} in `transaction()`" for work, name in _NAMES.items()},
    **_MANY_NAMES,
}

_WHAT = (
    "What the storage costs, beside the least that its work can cost and beside what one would take instead. "
    "`make bench` writes this page from [`results.json`](../benchmarks/results.json); how it is measured, "
    "[`benchmarks/`](../benchmarks/__init__.py) says."
)

_HOW = (
    "A figure is a ratio of two times of one run: the median of its repetitions, in brackets the lowest and "
    "the highest. The four works are an upsert of a pattern, a point read of one, an append of context, and "
    "a read of a player's newest 20."
)

_LIMIT = (
    "The limit is what one would write by hand, with the same schema, statements, settings and checks of "
    "JSON. Above 1.00 the storage reads JSON quicker than `json.loads`."
)

_ARMS = {
    "SQLite": (
        "*connection per call* is the app's earlier version. LangGraph's store has one index beside its key; "
        "our tables have up to four."
    ),
    "PostgreSQL": "The server is on the same machine and waits for no disk.",
}

_RIVALS_HAVE = (
    "What rivals have and the storage has not: LangGraph searches by meaning and lists namespaces; "
    "SQLAlchemy and peewee query whatever one likes; diskcache evicts; alembic and dbmate know more engines."
)

_OPENING = (
    "How long each tool takes to find out that there is nothing to do, as a multiple of the storage's time. "
    "*By hand* is the least that the storage's promises cost. With imports: a process from start to end."
)

_WHY_MORE = (
    "Raw takes longer, too: rows at random are in no cache of the processor. With all pages in SQLite's own "
    "memory its read still takes {0} times as long. A write at random also changes pages that no other "
    "changes, each of which is waited for."
)

_WHY_PAGES = (
    "Pages written for one append: {0}. Ours are the table's, three indexes', each of which serves a query "
    "that LangGraph's store does not have, and that of the highest id ever given, without which a deleted id "
    "would be given again."
)

_AT_ONCE = "{calls:,} mixed calls, shared among processes or threads, beside raw."

_TASKS = (
    "The same calls from asyncio tasks; the synchronous storage in as many threads is 1. The drivers have a "
    "pool, our statements and our settings."
)

# Why an aim was missed, by how its name begins.
_WHY = {
    "SQLite: at least 0.95": "checking its arguments is a twelfth of a read",
    "SQLite: at least 1.15": "an append writes more pages than LangGraph's: see below",
    "SQLite: 005": "the rest of the work is the same: raw itself gains {0}",
    "SQLite: 10,000": "JSON, where we gain, is less of a work whose pages are in no cache",
    "SQLite: asyncio": "the way to a thread and back is most of a short call",
    "PostgreSQL: at least 0.95": "no disk and no network: checks and pool weigh most",
    "PostgreSQL: at least 1.15": "both wait for the same server",
    "PostgreSQL: 005": "raw itself gains {0}",
    "PostgreSQL: 10,000": "raw varies more than the two differ",
    "PostgreSQL: asyncio": "the event loop itself: psycopg's coroutines have the same share",
    "`import": "within the spread",
    "opening: at least 50": "*by hand* is {0} times: the rest is Python",
    "rehearsal": "it copies, applies, rolls back, applies again, and compares every row",
}

_NOT_MEASURED = (
    "Machines with more cores, other disks, a server over a network, Citus, anything but Linux with CPython.",
    "A disk that has to be waited for: the shares would come closer to 1.",
    "Rivals in other languages, and rivals' own ways of writing in bulk.",
    "Insights, `recall`, `export_user` and `forget_user`: no rival has their like.",
    "A database that does not fit into memory.",
)


class Aim(NamedTuple):
    """What was aimed at, what was measured, and whether that is reached."""

    name: str
    measured: str
    is_reached: bool
    why: str = ""


def text(results: Results) -> str:
    """Return the page."""
    return "\n".join(_lines(results)).rstrip() + "\n"


def _lines(results: Results) -> Iterator[str]:
    parts = [
        *_aims_in_tables(results),
        *_rivals(results),
        *_opening(results),
        *_growth(results),
        *_moving(results),
        *_concurrency(results),
        *_many_tasks(results),
        *_not_measured(),
        *_environment(results),
    ]
    yield from ("# Benchmarks", "")
    yield from _prose(_WHAT)
    titles = [line.removeprefix("## ") for line in parts if line.startswith("## ")]
    links = " · ".join(f"[{title}](#{title.lower().replace(' ', '-').replace(',', '')})" for title in titles)
    yield from (textwrap.fill(f"- {links}", WIDTH, subsequent_indent="  ", break_on_hyphens=False), "")
    yield from _prose(_HOW)
    yield from parts


def show(found: dict[str, Any]) -> str:
    """Return a ratio and its spread."""
    return f"{found['median']:.2f} ({found['min']:.2f}-{found['max']:.2f})"


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
    return f"|{'|'.join(map(str, cells))}|"


def _by_engine(results: Results, part: str) -> dict[str, Any]:
    """Return what was measured of a part on each engine."""
    return {engine: results[f"{part}_{key}"] for engine, key in ENGINES.items() if f"{part}_{key}" in results}


def _listed(found: dict[str, float]) -> str:
    """Return medians by the names of their works."""
    return ", ".join(f"{_NAMES.get(work, work)} {median:.2f}" for work, median in found.items())


def _aims_in_tables(results: Results) -> Iterator[str]:
    aims = list(_aims(results))
    yield from ("## Aims that were missed, and why", "")
    missed = [_row(aim.name, aim.measured, aim.why) for aim in aims if not aim.is_reached]
    yield from _table(("aim", "measured", "why"), missed)
    yield from ("## Aims that were reached", "")
    reached: dict[str, list[str]] = {}
    for aim in (aim for aim in aims if aim.is_reached):
        engine, _, name = aim.name.partition(": ")
        is_of_one = engine in ENGINES
        reached.setdefault(name if is_of_one else aim.name, []).append(
            f"{engine}: {aim.measured}" if is_of_one else aim.measured
        )
    yield from _table(("aim", "measured"), (_row(name, "; ".join(found)) for name, found in reached.items()))


def _aim(name: str, measured: str, is_reached: bool, because: object = "") -> Aim:
    why = next((why for begin, why in _WHY.items() if name.startswith(begin)), "")
    return Aim(name, measured, is_reached, why.format(because))


def _aims(results: Results) -> Iterator[Aim]:
    """Yield each aim whose part was measured."""
    for engine, part in _by_engine(results, "rivals").items():
        yield from _speed_aims(engine, part)
    if part := results.get("start_up"):
        yield from _start_up_aims(part)
    if part := results.get("opening_sqlite"):
        yield from _opening_aims(part)
    for engine, part in _by_engine(results, "growth").items():
        yield from _growth_aims(engine, part)
    yield from _moving_aims(results)
    for engine, part in _by_engine(results, "concurrency").items():
        errors, lost = (
            sum(part[kind][what][OURS] for kind in KINDS.values()) for what in ("errors", "lost_updates")
        )
        name = f"{engine}: many at once without an error or a lost update"
        yield _aim(name, f"{errors} errors, {lost} lost", errors == lost == 0)
    for engine, part in _by_engine(results, "asyncio").items():
        shares = {number: found[OURS]["throughput"]["median"] for number, found in part["tasks"].items()}
        yield _aim(
            f"{engine}: asyncio has at least 0.7 of the throughput of threads",
            ", ".join(f"{share:.2f} with {number}" for number, share in shares.items()),
            min(shares.values()) >= 0.7,
        )


def _rivals_of(part: dict[str, Any], work: str) -> dict[str, float]:
    """Return the shares of what is neither ours nor raw."""
    shares = part["shares"][work].items()
    return {arm: found["median"] for arm, found in shares if arm not in (OURS, BEFORE, part["limit"])}


def _speed_aims(engine: str, part: dict[str, Any]) -> Iterator[Aim]:
    shares = {work: by_arm[OURS]["median"] for work, by_arm in part["shares"].items()}
    yield _aim(f"{engine}: at least 0.95 of raw on each work", _listed(shares), min(shares.values()) >= 0.95)
    by_rival: dict[str, dict[str, float]] = {}
    for work, share in shares.items():
        best, its = max(_rivals_of(part, work).items(), key=lambda rival: rival[1])
        by_rival.setdefault(best, {})[work] = share / its
    yield _aim(
        f"{engine}: at least 1.15 times as fast as every rival",
        "; ".join(f"{_listed(ahead)} ({rival})" for rival, ahead in by_rival.items()),
        min(times for ahead in by_rival.values() for times in ahead.values()) >= 1.15,
    )
    aims = {"save_context": 1.4, "save_pattern": 1.5, "get_context": 0.95}
    times = {work: part["by_before"][work]["median"] for work in aims}
    raw = {work: 1 / part["shares"][work][BEFORE]["median"] for work in aims}
    yield _aim(
        f"{engine}: 005 beside raw on 004: append 1.4, upsert 1.5, newest 20 not slower",
        _listed(times),
        all(times[work] >= aim for work, aim in aims.items()),
        _listed(raw),
    )


def _start_up_aims(part: dict[str, Any]) -> Iterator[Aim]:
    taken = part["import_milliseconds"]["median"]
    name = "`import poker_therapist`: at most 45 ms of the processor beyond Python's"
    yield _aim(name, f"{taken:.1f} ms", taken <= 45)
    shares = {name: found["median"] for name, found in part["by_yoyo_list"].items()}
    name = "`status`, and the version: at most 1.5 times the processor's time of `yoyo list`"
    yield _aim(name, _listed(shares), max(shares.values()) <= 1.5)


def _opening_aims(part: dict[str, Any]) -> Iterator[Aim]:
    counts = part["counts"]
    beyond = {count: found["milliseconds_beyond_connecting"]["median"] for count, found in counts.items()}
    yield _aim(
        "opening: under 1 ms beyond connecting",
        ", ".join(f"{taken:.2f} ms with {count} migrations" for count, taken in beyond.items()),
        max(beyond.values()) < 1,
    )
    less = {
        count: [found["beyond_connecting"][yoyo]["median"] for yoyo in (YOYO_WITH_LOCK, YOYO)]
        for count, found in counts.items()
    }
    by_hand = (
        found["beyond_connecting"][YOYO_WITH_LOCK]["median"] / found["beyond_connecting"][BY_HAND]["median"]
        for found in counts.values()
    )
    yield _aim(
        "opening: at least 50 times less than yoyo, as documented, beyond connecting",
        ", ".join(
            f"{start:.0f} with {count} (its check {check:.0f})" for count, (start, check) in less.items()
        ),
        min(start for start, _ in less.values()) >= 50,
        " and ".join(f"{times:.0f}" for times in by_hand),
    )
    leaves = all(found["nothing_written"] and found["yoyo_not_imported"] for found in counts.values())
    yield _aim("opening writes no byte and imports nothing of yoyo's", "none" if leaves else "not so", leaves)
    few, many = counts
    flat = part["many_by_few"]
    yield _aim(f"opening with {many} migrations: at most 1.5 times {few}", show(flat), flat["median"] <= 1.5)


def _growth_aims(engine: str, part: dict[str, Any]) -> Iterator[Aim]:
    ours, raw = part["latency_by_rows"]["ours"], part["latency_by_rows"]["raw"]
    few, *_, many = next(iter(ours.values()))
    yield _aim(
        f"{engine}: {int(few):,} to {int(many):,} rows, the latency grows at most 1.05 times as raw's",
        _listed({work: ours[work][many]["median"] / raw[work][many]["median"] for work in ours}),
        max(ours[work][many]["median"] / raw[work][many]["median"] for work in ours) <= 1.05,
    )
    busy = {work: more["median"] for work, more in part["busy_player"].items()}
    name = f"{engine}: a player with {part['busy_rows']:,} contexts costs at most 1.1 times one with 100"
    yield _aim(name, _listed(busy), max(busy.values()) <= 1.1)
    for how, names, least in (("`transaction()`", _NAMES, 0.8), ("one call", _MANY_NAMES, 0.95)):
        bulk = {names[work]: share["median"] for work, share in part["bulk"].items() if work in names}
        if bulk:
            name = f"{engine}: bulk writing in {how} at least {least} of raw `executemany`"
            yield _aim(name, _listed(bulk), min(bulk.values()) >= least)


def _moving_aims(results: Results) -> Iterator[Aim]:
    if part := results.get("upgrade"):
        time, memory = part["time_by_raw"]["median"], part["memory_by_few_rows"]["median"]
        worst = part["time_by_raw_without_users"]["median"]
        name = f"upgrade of {part['rows']:,} old rows: at most 1.3 times the statements alone"
        yield _aim(name, f"{time:.2f}; {worst:.2f} where each row lacks its parent", time <= 1.3)
        name = f"its memory: at most 1.5 times that of {part['few_rows']:,} rows"
        yield _aim(name, f"{memory:.2f}", memory <= 1.5)
    if part := results.get("rehearsal"):
        by_apply, by_raw = (part[name]["median"] for name in ("time_by_apply", "time_by_raw"))
        measured = f"{by_apply:.2f} (beside the statements alone {by_raw:.2f})"
        yield _aim("rehearsal of the upgrade: at most 3 times applying", measured, by_apply <= 3)
        status = part["status_seconds"]["median"]
        yield _aim(f"`status` of {part['rows']:,} rows: under a second", f"{status:.2f} s", status < 1)
    if part := results.get("copy"):
        copied = part["time_by"]["raw"]["median"]
        name = f"`copy` of {part['rows']:,} rows: at most 1.7 times reading and COPY alone"
        yield _aim(name, f"{copied:.2f}", copied <= 1.7)


def _rivals(results: Results) -> Iterator[str]:
    parts = _by_engine(results, "rivals")
    if not parts:
        return
    yield from ("## Beside its limit and its rivals", "")
    load = next(iter(parts.values()))["load"]
    yield from _prose(
        f"Shares of the limit's speed: less is slower. {load['writes']:,} upserts and {load['writes']:,} "
        f"appends for 100 players, one commit each, values of about 235 bytes; {load['reads']:,} reads at "
        f"random; {load['looks']:,} of the newest 20. {_LIMIT}"
    )
    for engine, part in parts.items():
        yield from _table(
            (engine, *(_NAMES[work] for work in part["shares"])),
            (_arm(arm, part) for arm in next(iter(part["shares"].values()))),
        )
        yield from _prose(_ARMS[engine])
    if len(parts) == len(ENGINES):
        yield from ("![Shares of the limit, by arm and work](benchmarks-shares.svg)", "")
    better = [
        f"A rival is better: {arm}, {_NAMES[work]} {share:.2f}, ours {by_arm[OURS]['median']:.2f}."
        for engine, part in parts.items()
        for work, by_arm in part["shares"].items()
        for arm, share in _rivals_of(part, work).items()
        if share > by_arm[OURS]["median"]
    ]
    if better and (pages := parts.get("SQLite", {}).get("pages_per_append")):
        by_count: dict[str, list[str]] = {}
        for arm, count in pages.items():
            by_count.setdefault(f"{count:.0f}", []).append(arm)
        better.append(_WHY_PAGES.format("; ".join(f"{', '.join(arms)} {n}" for n, arms in by_count.items())))
    yield from _prose(" ".join(better or ["In none of the four works is a rival quicker."]))
    yield from _prose(_RIVALS_HAVE)


def _arm(arm: str, part: dict[str, Any]) -> str:
    if arm == part["limit"]:
        return _row(f"{arm}, the limit", *("1" for _ in part["shares"]))
    name = f"**{arm}**" if arm == OURS else arm
    return _row(name, *(show(by_arm[arm]) for by_arm in part["shares"].values()))


def _opening(results: Results) -> Iterator[str]:
    part, server = results.get("opening_sqlite"), results.get("opening_postgresql")
    if part is None:
        return
    yield from ("## Opening", "")
    yield from _prose(_OPENING)
    columns = {
        f"{count} migrations{how}": found[f"imports_{key}"]
        for count, found in part["counts"].items()
        for how, key in (("", "left_out"), (", with imports", "counted_in"))
    }
    tools = dict.fromkeys(tool for column in columns.values() for tool in column)
    yield from _table(
        ("tool", *columns),
        (
            _row(tool, *(show(column[tool]) if tool in column else "" for column in columns.values()))
            for tool in tools
            if tool != OURS
        ),
    )
    if server:
        left_out = server["imports_left_out"]
        yield from _prose(
            f"On PostgreSQL connecting and a SELECT take {show(left_out['connect and SELECT'])} of the "
            f"storage's time, yoyo's check {show(left_out[YOYO])} times as long. Beyond connecting the "
            f"storage takes {server['milliseconds_beyond_connecting']['median']:.2f} ms."
        )


def _growth(results: Results) -> Iterator[str]:
    parts = _by_engine(results, "growth")
    if not parts:
        return
    yield from ("## Growth", "")
    few = int(next(iter(next(iter(parts.values()))["latency_by_rows"]["ours"]["get_pattern"])))
    yield from _prose(
        f"The latency as a multiple of that with {few:,} rows, and at the end ours as a share of raw's speed."
    )
    for engine, part in parts.items():
        latencies = part["latency_by_rows"]
        _, middle, most = next(iter(latencies["ours"].values()))
        columns = [("ours", middle), *((arm, most) for arm in latencies)]
        yield from _table(
            (
                engine,
                *(
                    f"{arm.replace(', without waiting for the disk', ', no disk')}: {int(n):,}"
                    for arm, n in columns
                ),
                "share",
            ),
            (
                _row(
                    _NAMES[work],
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
            f"{_NAMES[work]} of a player with {one['busy_rows']:,} contexts, by one with 100",
            *(show(part["busy_player"][work]) for part in parts.values()),
        )
        for work in one["busy_player"]
    ]
    rows += [
        _row(
            f"{one['bulk_rows']:,} times {_BULK_NAMES[work]}, share of raw `executemany`",
            *(show(part["bulk"][work]) for part in parts.values()),
        )
        for work in one["bulk"]
    ]
    yield from _table(("", *parts), rows)


def _moving(results: Results) -> Iterator[str]:
    rows = []
    if part := results.get("upgrade"):
        rows += [
            (f"upgrade of {part['rows']:,} rows by the statements alone", show(part["time_by_raw"])),
            ("where no player has a row in `users`", show(part["time_by_raw_without_users"])),
            (f"its memory by that of {part['few_rows']:,} rows", show(part["memory_by_few_rows"])),
            ("its memory by that of the statements alone", f"{part['memory_by_raw']:.2f}"),
        ]
    if part := results.get("rehearsal"):
        rows += [
            ("rehearsal by the upgrade", show(part["time_by_apply"])),
            (f"`status` by that of {part['few_rows']:,} rows", show(part["status_by_few_rows"])),
            ("file under 005 by that under 004, both without free pages", f"{part['file_by_before']:.2f}"),
        ]
    if part := results.get("copy"):
        rows.append((f"`copy` of {part['rows']:,} rows by reading and COPY", show(part["time_by"]["raw"])))
        if pgloader := part["time_by"].get("pgloader"):
            rows.append((f"`copy` by `pgloader` {part['pgloader']}", show(pgloader)))
    if rows:
        yield from ("## Upgrade, rehearsal, copy", "")
        yield from _table(("", "ratio"), (_row(*row) for row in rows))


def _concurrency(results: Results) -> Iterator[str]:
    parts = _by_engine(results, "concurrency")
    if not parts:
        return
    yield from ("## Many at once", "")
    yield from _prose(_AT_ONCE.format(calls=next(iter(parts.values()))["processes"]["calls"]))
    arms = {f"{engine}, {kind}": part[kind] for engine, part in parts.items() for kind in KINDS.values()}
    numbers = dict.fromkeys(number for arm in arms.values() for number in arm["workers"])
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "throughput": lambda found: show(found["throughput"]),
        "latency: p50, p99": lambda found: f"{found['p50']['median']:.2f}, {found['p99']['median']:.2f}",
    }
    for title, cell in columns.items():
        yield from _table(
            (title, *arms),
            (
                _row(n, *(cell(arm["workers"][n]) if n in arm["workers"] else "" for arm in arms.values()))
                for n in numbers
            ),
        )
    told = (
        f"{name} had {sum(arm['errors'][name] for arm in arms.values())} errors and lost "
        f"{sum(arm['lost_updates'][name] for arm in arms.values())} updates"
        for name in next(iter(arms.values()))["errors"]
    )
    yield from _prose(f"In all runs {', '.join(told)}.")
    if len(parts) == len(ENGINES):
        yield from ("![Throughput against writers](benchmarks-concurrency.svg)", "")


def _many_tasks(results: Results) -> Iterator[str]:
    parts = _by_engine(results, "asyncio")
    if not parts:
        return
    yield from ("## asyncio", "")
    yield from _prose(_TASKS)
    for engine, part in parts.items():
        arms = list(next(iter(part["tasks"].values())))
        yield from _table(
            (f"{engine}, tasks", *(SHORT.get(arm, arm) for arm in arms), "ours: p99 latency"),
            (
                _row(number, *(show(found[arm]["throughput"]) for arm in arms), show(found[OURS]["p99"]))
                for number, found in part["tasks"].items()
            ),
        )
    failures = [
        f"{SHORT.get(arm, arm)} on {engine}: {part['errors'][arm]} errors, {part['lost_updates'][arm]} lost"
        for engine, part in parts.items()
        for arm in part["errors"]
        if part["errors"][arm] or part["lost_updates"][arm]
    ]
    yield from _prose(f"{'; '.join(failures) or 'None had an error or lost an update'}.")


def _not_measured() -> Iterator[str]:
    yield from ("## Not measured", "")
    for item in _NOT_MEASURED:
        yield textwrap.fill(f"- {item}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    yield ""


def _environment(results: Results) -> Iterator[str]:
    """Say what all of it was measured on: the same for every part, or each by itself."""
    yield from ("## Measured on", "")
    machines: dict[str, dict[str, Any]] = {}
    for part, found in results.items():
        on = found["measured_on"]
        machine = f"{on['cores']} cores, {on['memory_gb']} GB of memory, {on['system']}"
        machines.setdefault(machine, {})[part] = on["versions"]
    for machine, parts in machines.items():
        names = dict.fromkeys(name for versions in parts.values() for name in versions)
        listed = (
            f"{name} {' or '.join(sorted({each[name] for each in parts.values() if name in each}))}"
            for name in names
        )
        which = f"{', '.join(parts)}: " if len(machines) > 1 else ""
        yield from _prose(f"{which}{machine}; {', '.join(listed)}.")
    if servers := sorted({found["server"] for found in results.values() if "server" in found}):
        yield from _prose(f"The server: PostgreSQL {', '.join(servers)}.")
