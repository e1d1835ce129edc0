"""The pages of an SQLite file: which bytes of them nothing uses; https://sqlite.org/fileformat.html."""

import errno
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

_INTERIOR_INDEX, _INTERIOR_TABLE, _LEAF_INDEX, _LEAF_TABLE = 2, 5, 10, 13
_LOCK_BYTE = 0x40000000
_JOURNAL_MODE = slice(18, 20)


class DamagedPage(Exception):
    """A page is not as the format demands."""


def erase_unused(file: BinaryIO, roots: Iterable[int]) -> bool:
    """Overwrite with zeros every byte of a database file that nothing uses; return whether there was one.

    No other connection uses the file. It is left in the mode without a write-ahead log.

    Args:
        file: the file, unbuffered.
        roots: the first page of each b-tree.

    Raises:
        DamagedPage: the file is damaged.
    """
    pages = _Pages(file)
    try:
        pages.erase(roots)
    except (IndexError, struct.error) as error:
        raise DamagedPage(f"page {pages.number}") from error
    return pages.is_changed


class _Pages:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        file.seek(0)
        header = file.read(100)
        (size,) = struct.unpack_from(">H", header, 16)
        self._size = 65536 if size == 1 else size
        self._usable = self._size - header[20]
        self._total, self._trunk, self._free = struct.unpack_from(">III", header, 28)
        self._has_map = any(header[52:56])
        self._zeros = bytes(self._size)
        self._seen = bytearray(self._total + 1)
        # The most bytes of a row, and of a key, in one page; the fewest if it overflows.
        self._most_of_row = self._usable - 35
        self._most_of_key = (self._usable - 12) * 64 // 255 - 23
        self._least = (self._usable - 12) * 32 // 255 - 23
        self.number = 1
        self.is_changed = False
        if header[_JOURNAL_MODE] == b"\2\2":
            file.seek(_JOURNAL_MODE.start)
            file.write(b"\1\1")

    def erase(self, roots: Iterable[int]) -> None:
        to_do = list(roots)
        while to_do:
            to_do += self._erase_tree_page(to_do.pop())
        free = 0
        while self._trunk:
            trunk = self._read(self._trunk)
            self._trunk, count = struct.unpack_from(">II", trunk)
            leaves = struct.unpack_from(f">{count}I", trunk, 8)
            self._write(trunk, [(8 + 4 * count, self._usable)])
            for number in leaves:
                self._write(self._read(number), [(0, self._usable)])
            free += 1 + count
        if free != self._free:
            raise DamagedPage("the list of free pages")
        for number in range(1, self._total + 1):
            if not self._seen[number] and not self._is_special(number):  # lost by a program that crashed
                self._write(self._read(number), [(0, self._usable)])

    def _is_special(self, number: int) -> bool:
        """Return whether a page is that of the lock bytes, or one of the map of an auto_vacuum database."""
        lock = _LOCK_BYTE // self._size + 1
        group = self._usable // 5 + 1
        map_page = (number - 2) // group * group + 2
        return number == lock or (self._has_map and number == map_page + (map_page == lock))

    def _read(self, number: int) -> bytearray:
        self.number = number
        if not 0 < number <= self._total or self._seen[number] or self._is_special(number):
            raise DamagedPage(f"page {number} is used twice, or does not exist")
        self._seen[number] = 1
        self._file.seek((number - 1) * self._size)
        return bytearray(self._file.read(self._size))

    def _write(self, page: bytearray, unused: Iterable[tuple[int, int]]) -> None:
        """Overwrite the unused parts of the page that was read last, if anything is there."""
        is_changed = False
        for start, end in unused:
            if page[start:end] != self._zeros[: end - start]:
                page[start:end] = self._zeros[: end - start]
                is_changed = True
        if is_changed:
            self._file.seek((self.number - 1) * self._size)
            if self._file.write(page) < self._size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.is_changed = True

    def _erase_tree_page(self, number: int) -> Sequence[int]:
        """Erase a page of a b-tree, and the pages that its cells overflow to; return its children."""
        page = self._read(number)
        start = 100 if number == 1 else 0
        kind, _, count, content, fragments = struct.unpack_from(">BHHHB", page, start)
        if kind not in (_INTERIOR_INDEX, _INTERIOR_TABLE, _LEAF_INDEX, _LEAF_TABLE):
            raise DamagedPage(f"page {number}")
        is_interior = kind in (_INTERIOR_INDEX, _INTERIOR_TABLE)
        header = start + (12 if is_interior else 8)
        cells = struct.unpack_from(f">{count}H", page, header)
        array_end, content = header + 2 * count, content or 65536
        if not array_end <= content <= self._usable or (cells and min(cells) < content):
            raise DamagedPage(f"page {number}")
        blocks = list(self._free_blocks(page, start, content))
        unused = [(array_end, content), *((at + 4, end) for at, end in blocks)]
        if fragments:
            ends = [(at, at + self._cell(page, kind, at)[0]) for at in cells]
            unused += self._fragments([*blocks, *ends], content)
        chains = [self._cell(page, kind, at)[1:] for at in self._overflowing(page, kind, cells)]
        self._write(page, unused)
        for first, length in chains:
            self._erase_overflow(first, length)
        if not is_interior:
            return ()
        return [struct.unpack_from(">I", page, at)[0] for at in (start + 8, *cells)]

    def _free_blocks(self, page: bytearray, start: int, content: int) -> Iterator[tuple[int, int]]:
        (at,) = struct.unpack_from(">H", page, start + 1)
        end = content
        while at:
            if at < end:
                raise DamagedPage(f"page {self.number}")
            following, length = struct.unpack_from(">HH", page, at)
            end = at + length
            if length < 4 or end > self._usable:
                raise DamagedPage(f"page {self.number}")
            yield at, end
            at = following

    def _fragments(self, taken: Iterable[tuple[int, int]], content: int) -> Iterator[tuple[int, int]]:
        """Find the one to three bytes that are left between cells; a page counts them."""
        end = content
        for at, its_end in sorted(taken):
            if at < end:
                raise DamagedPage(f"page {self.number}")
            yield end, at
            end = its_end
        yield end, self._usable

    def _overflowing(self, page: bytearray, kind: int, cells: Sequence[int]) -> Sequence[int]:
        """Return the cells that may overflow, by the first bytes of their length, which may be longer."""
        if kind == _INTERIOR_TABLE:
            return ()
        skip = 4 if kind == _INTERIOR_INDEX else 0
        most = self._most_of_row if kind == _LEAF_TABLE else self._most_of_key
        least = 0x80 | most >> 7 if most > 127 else most + 1
        return [
            at
            for at in cells
            if page[at + skip] >= least or (page[at + skip] > 127 and page[at + skip + 1] > 127)
        ]

    def _cell(self, page: bytearray, kind: int, at: int) -> tuple[int, int, int]:
        """Return how long a cell is, the first page that it overflows to if any, and how much is there."""
        here = at + 4 if kind in (_INTERIOR_INDEX, _INTERIOR_TABLE) else at
        length = 0
        if kind != _INTERIOR_TABLE:
            length, here = _varint(page, here)
        if kind in (_LEAF_TABLE, _INTERIOR_TABLE):
            _, here = _varint(page, here)
        most = self._most_of_row if kind == _LEAF_TABLE else self._most_of_key
        if length <= most:
            return max(here + length - at, 4), 0, 0
        local = self._least + (length - self._least) % (self._usable - 4)
        local = local if local <= most else self._least
        (first,) = struct.unpack_from(">I", page, here + local)
        return here + local + 4 - at, first, length - local

    def _erase_overflow(self, number: int, length: int) -> None:
        while length > 0 and number:
            page = self._read(number)
            self._write(page, [(min(4 + length, self._usable), self._usable)])
            length -= self._usable - 4
            (number,) = struct.unpack_from(">I", page)


def _varint(page: bytearray, at: int) -> tuple[int, int]:
    value = 0
    for _ in range(8):
        value = value << 7 | page[at] & 0x7F
        at += 1
        if page[at - 1] < 0x80:
            return value, at
    return value << 8 | page[at], at + 1
