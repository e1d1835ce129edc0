"""What may be stored: ids, keys, scores and JSON values, each checked before it reaches the database.

A value must come back equal from JSON. Other values are refused: NaN, infinities, keys that are not strings,
bytes, dates, lone surrogates, cycles. Tuples come back as lists.
"""

import json
import operator
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, SupportsIndex, cast

from poker_therapist.errors import InvalidInput

# Exactly the types that the encoder takes. What a container holds is `Any` and is checked when it is saved:
# `list` and `dict` are invariant, so a variable of type dict[str, float] is no dict[str, "JSON"]; and their
# covariant kin let in what the encoder refuses, `Sequence` bytes and range, `Mapping` a mappingproxy.
JSON = None | bool | int | float | str | list[Any] | tuple[Any, ...] | dict[str, Any]

# Deep enough for any value, shallow enough for every reader: SQLite reads 1,000 levels, Python as many less
# the depth of its caller.
MAX_DEPTH = 500
_TOO_DEEP = f"the value is nested more than {MAX_DEPTH} levels deep, or contains itself: flatten it"

# In characters; with up to four bytes each, a type and a key fit into an entry of PostgreSQL's index.
MAX_KEY_LENGTH = 255

_encoder = json.JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"))
_decoder = json.JSONDecoder()
# Half of the time of json.loads: a stored text has no blanks around it to look for.
_from_json = _decoder.raw_decode


def _to_json() -> Callable[[Any], str]:
    """Return what writes JSON: CPython's own encoder, which `JSONEncoder.encode` creates at each call.

    A container inside itself ends in a RecursionError, as what is nested too deeply.
    """
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # another Python's
        return _encoder.encode
    quote = json.encoder.encode_basestring
    encode_in_parts = make(None, _encoder.default, quote, None, ":", ",", False, False, False)
    return lambda value: "".join(encode_in_parts(value, 0))


_write = _to_json()
_CONTAINERS = (dict, list, tuple)


def encode(value: JSON) -> str:
    """Return `value` as JSON text that decodes to an equal value.

    Raises:
        InvalidInput: `value` is not JSON; the message names the part.
    """
    try:
        text = _write(value)
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            "the value contains a lone surrogate, half of a UTF-16 character: decode its source as UTF-16"
        ) from error
    except RecursionError as error:
        raise InvalidInput(_TOO_DEEP) from error
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the value is not JSON ({error}): convert it before saving it") from error
    if ("{" in text or text.count("[") > MAX_DEPTH) and not _is_plain(value, 1):
        # The methods of a subclass may vary from call to call, so what was checked is what is encoded.
        try:
            plain = _copied(value)
        except RecursionError as error:
            raise InvalidInput(_TOO_DEEP) from error
        return encode(plain)
    return text


def _is_plain(value: Any, depth: int) -> bool:
    """Return whether a value holds no container of a subclass; refuse what the encoder lets through.

    The encoder turns keys that are no strings into strings, and knows no limit to the depth.
    """
    if depth > MAX_DEPTH:
        raise InvalidInput(_TOO_DEEP)
    if type(value) is dict:
        for key in value:
            if type(key) is not str and not isinstance(key, str):
                raise InvalidInput(
                    f"a key inside the value must be a string (got {show(key)}, {type(key).__name__})"
                )
        value = value.values()
    elif type(value) is not list and type(value) is not tuple:
        return not isinstance(value, _CONTAINERS)
    for item in value:  # noqa: SIM110  # a generator would take twice as long
        if isinstance(item, _CONTAINERS) and not _is_plain(item, depth + 1):
            return False
    return True


def _copied(value: Any) -> Any:
    """Return a value with a dict or list for each container of a subclass such as OrderedDict."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(item) for item in value]
    return value


def decode(text: str) -> Any:
    """Return the value of a stored JSON text.

    What SQLite takes for JSON and Python cannot read (an integer of more than 4,300 digits, more levels than
    are stored here) comes back as its text, as the earlier app read it.

    Raises:
        RecursionError: the call stack of the caller is too deep to read the value.
    """
    try:
        value, end = _from_json(text)
        return value if end == len(text) else _decoder.decode(text)
    except (ValueError, RecursionError):
        try:
            return _decoder.decode(text)  # blanks before the value, as adopted rows may have
        except ValueError:
            return text
        except RecursionError:
            if _depth(text) <= MAX_DEPTH:
                raise
            return text


def _depth(text: str) -> int:
    """Return how many levels a JSON text is nested."""
    depth = deepest = 0
    for found in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        deepest = max(deepest, depth)
    return deepest


def decode_all(texts: list[str]) -> list[Any]:
    """Return the values of stored JSON texts: as one array, which takes half the time of one by one."""
    try:
        values: list[Any] = _decoder.decode(f"[{','.join(texts)}]")
    except (ValueError, RecursionError):
        values = []
    return values if len(values) == len(texts) else [decode(text) for text in texts]


def check_user(user_id: SupportsIndex, name: str = "user_id") -> int:
    """Return `user_id` as an int if it is an integer of at most 64 bits; raise InvalidInput if not."""
    number = user_id if type(user_id) is int else _integer(user_id)
    if number is not None and -(2**63) <= number < 2**63:
        return number
    raise InvalidInput(f"{name} must be an integer of at most 64 bits (got {show(user_id)})")


def check_key(name: str, key: str) -> str:
    """Return `key` if it is a string that both engines can hold; raise InvalidInput naming it if not.

    For reads: an old database may contain longer keys than `check_new_key` allows. Of a subclass of str
    only its text counts.
    """
    if type(key) is not str and isinstance(key, str):
        key = str.__str__(key)
    if isinstance(key, str) and key and (key.isascii() or _is_unicode(key)) and "\0" not in key:
        return key
    rule = "string without NUL or a lone surrogate" if isinstance(key, str) and key else "non-empty string"
    raise InvalidInput(f"{name} must be a {rule} (got {show(key)})")


def check_new_key(name: str, key: str) -> str:
    """Return `key` if it can be saved as a type, key or session; raise InvalidInput naming it if not.

    An index of PostgreSQL's holds at most 2,704 bytes, so that longer ones would be refused there and not on
    SQLite: https://www.postgresql.org/docs/current/btree.html
    """
    if type(key) is str and 0 < len(key) <= MAX_KEY_LENGTH and key.isascii() and "\0" not in key:
        return key  # as below, without the calls
    key = check_key(name, key)
    if len(key) <= MAX_KEY_LENGTH:
        return key
    raise InvalidInput(
        f"{name} must be at most {MAX_KEY_LENGTH} characters long (this one has {len(key):,}): shorten it, "
        "and keep the long text in the value"
    )


def check_session(session_id: str | None) -> str | None:
    """Return `session_id` if it is a key, None for none; raise InvalidInput if it is neither.

    An empty string is no session, as it was to the earlier app.
    """
    return None if session_id is None or session_id == "" else check_key("session_id", session_id)


def check_new_session(session_id: str | None) -> str | None:
    """Return `session_id` if it can be saved, None for none; raise InvalidInput if it cannot."""
    return None if session_id is None or session_id == "" else check_new_key("session_id", session_id)


def check_score(name: str, score: float) -> float:
    """Return `score` as a float if it is a number from 0 to 1; raise InvalidInput naming it if not."""
    number = score if isinstance(score, float) else _integer(score)
    if number is not None and 0 <= number <= 1:
        return number + 0.0  # without the sign of a zero, which only one engine keeps
    raise InvalidInput(f"{name} must be a number from 0 to 1 (got {show(score)})")


def check_limit(name: str, limit: SupportsIndex | None) -> int:
    """Return how many rows to read at most, all for None; raise InvalidInput naming it if it is no count."""
    if limit is None:
        return 2**63 - 1
    most = _integer(limit)
    if most is not None and 0 <= most < 2**63:
        return most
    raise InvalidInput(f"{name} must be None or an integer of at least 0 (got {show(limit)})")


# Both engines sort these before and after every time.
_EARLIEST, _LATEST = "-infinity", "infinity"


def check_page(
    before: SupportsIndex | Mapping[str, Any] | None,
    since: datetime | None,
    until: datetime | None,
    field: str = "id",
) -> tuple[int, str, str]:
    """Return the last id and the bounds in time of what a query reads; raise InvalidInput for what is none.

    Args:
        before: the id that the rows are to be older than, or a record that has it.
        since: the first moment.
        until: the moment after the last.
        field: what a record of this kind has, and none of another.
    """
    last = 2**63 - 1
    if before is not None:
        found = before["id"] if isinstance(before, Mapping) and before.keys() >= {"id", field} else before
        name = "before (an id or a record that this method returned)"
        last = max(check_user(cast(SupportsIndex, found), name), 1 - 2**63) - 1
    return (
        last,
        _EARLIEST if since is None else timestamp(check_moment("since", since)),
        _LATEST if until is None else timestamp(check_moment("until", until)),
    )


def check_place(before: Mapping[str, Any] | None) -> tuple[float, int]:
    """Return the importance and id of an insight, after which a page in the order of importance begins."""
    if before is None:
        return 2.0, 0
    if isinstance(before, Mapping) and before.keys() >= {"importance", "id"}:
        return check_score("importance of before", before["importance"]), check_user(
            before["id"], "id of before"
        )
    raise InvalidInput(
        f"before must be an insight that this method returned, with importance and id (got {show(before)})"
    )


def check_moment(name: str, moment: datetime) -> datetime:
    """Return a moment in UTC if it is an aware datetime; raise InvalidInput naming it if it is not."""
    is_aware = False
    with suppress(ValueError):  # of a time zone of the app's own
        is_aware = isinstance(moment, datetime) and moment.utcoffset() is not None
    if is_aware:
        return _in_utc(name, moment)
    raise InvalidInput(
        f"{name} must be a datetime with a time zone, such as datetime.now(UTC) (got {show(moment)})"
    )


def _in_utc(name: str, moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except (OverflowError, ValueError) as error:
        raise InvalidInput(f"{name} must be in the years 1 to 9999 in UTC (got {show(moment)})") from error


def as_datetime(stored: str) -> datetime:
    """Return a time of a record, such as `created_at`, as an aware datetime in UTC.

    Also those in `legacy_rows`, as the earlier app wrote them: without a time zone they are UTC.

    Raises:
        InvalidInput: it is no time. None is none: the `expires_at` of what never expires.
    """
    if stored is None:
        raise InvalidInput(
            "a time must be a string (got None): expires_at is None if a row never expires: check that first"
        )
    try:
        moment = datetime.fromisoformat(stored)
    except (TypeError, ValueError):
        pass
    else:
        return _in_utc("the time", moment) if moment.tzinfo else moment.replace(tzinfo=UTC)
    raise InvalidInput(f"a time must be a string that the storage returned (got {show(stored)})")


def creation(moment: datetime | None) -> str:
    """Return when something was created, as it is stored: now, unless given.

    Raises:
        InvalidInput: `moment` is no aware datetime.
    """
    return timestamp(now() if moment is None else check_moment("created_at", moment))


def timestamp(moment: datetime) -> str:
    """Return a moment in UTC in the one form that is stored, which sorts as text."""
    return moment.isoformat("T", "microseconds")


def now() -> datetime:
    """Return this moment, in UTC."""
    return datetime.now(UTC)


def expiry(moment: datetime, minutes: float | None) -> str | None:
    """Return when something saved at `moment` expires, None for never.

    Zero minutes, as None, never expire; less than zero is already expired, as to the earlier app.

    Raises:
        InvalidInput: `minutes` is no finite number, or leads out of the years 1 to 9999.
    """
    if minutes is None:
        return None
    try:
        number = minutes if isinstance(minutes, float) else _integer(minutes)
        if number == 0:
            return None
        if number is not None:
            return timestamp(moment + timedelta(minutes=number))
    except (TypeError, ValueError, OverflowError):
        pass
    raise InvalidInput(
        f"expires_minutes must be None or minutes within the years 1 to 9999 (got {show(minutes)})"
    )


def _integer(value: object) -> int | None:
    """Return an integer, NumPy's among them, as an int; None for what is none, and for a bool."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]  # what is no integer raises TypeError
    except TypeError:
        return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def show(value: object) -> str:
    """Return a value for a message, shortened: it may be a player's, and long."""
    try:
        shown = ascii(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list inside itself
        shown = "a value that cannot be shown"
    return shown if len(shown) <= 40 else f"{shown[:37]}..."
