"""HPACK (RFC 7541) with no dynamic table: a header block means the same on every connection and at any time.

We never index what we send, and SETTINGS_HEADER_TABLE_SIZE = 0 keeps the peer from it (RFC 9113, 6.5.2; it knows
before it sees our first request). So blocks need not be decoded in order, and those that come again need not be
decoded at all.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

Fields = list[tuple[bytes, bytes]]

# A dynamic table of size 0 (6.3). A peer whose settings allow less than 4,096 may insist on it, in our first block.
NO_TABLE = b"\x20"

_ENTRY = 32  # bytes an entry counts for beside its text (4.1)
_EOS = 256  # the symbol of the Huffman code that is never sent

# Appendix A. The index of an entry is its place, from 1.
_STATIC: tuple[tuple[bytes, bytes], ...] = (
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
)
# Appendix B. The code is canonical: the lengths of the codes of its symbols, in bits, are all there is to know.
_LENGTHS = (
    *(13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28),
    *(30, 28, 28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11),
    *(8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6),
    *(7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7),
    *(8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6),
    *(6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20),
    *(22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21),
    *(22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23),
    *(21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23),
    *(22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26),
    *(28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27),
    *(26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30),
)


class HpackError(Exception):
    """A header block that cannot be decoded."""


class TooLargeError(Exception):
    """A header list larger than the limit."""


def literal(name: bytes, value: bytes, *, secret: bool = False) -> bytes:
    """A field as a literal with a new name; `secret`: nobody on the way may index it (6.2.2, 6.2.3)."""
    return (b"\x10" if secret else b"\x00") + _text(name) + _text(value)


def named(index: int, value: bytes) -> bytes:
    """A field as a literal whose name is that of an entry of the static table."""
    return _integer(index, 4, 0) + _text(value)


def indexed(index: int) -> bytes:
    """A field that the static table has (6.1)."""
    return _integer(index, 7, 0x80)


def _text(text: bytes) -> bytes:
    size = len(text)
    if size < 127:  # noqa: PLR2004 what a prefix of 7 bits holds
        return bytes((size,)) + text
    return _integer(size, 7, 0) + text


def _integer(value: int, prefix: int, first: int) -> bytes:
    """An integer with a prefix of so many bits (5.1)."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes((first | value,))
    octets = bytearray((first | most,))
    value -= most
    while value > 0x7F:  # noqa: PLR2004 seven bits an octet
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def decode(block: bytes, limit: int) -> Fields:
    """The fields of a block.

    Raises:
        HpackError: it is malformed, or uses the dynamic table.
        TooLargeError: they count for more than `limit` bytes.
    """
    fields: Fields = []
    at = size = 0
    try:
        while at < len(block):
            first = block[at]
            if first & 0xE0 == 0x20:  # noqa: PLR2004 the size of the dynamic table (6.3)
                allowed, at = _read_integer(block, at, 5)
                if allowed or fields:
                    raise HpackError("the dynamic table is switched off")
                continue
            field, at = _read_field(block, at, first)
            size += len(field[0]) + len(field[1]) + _ENTRY
            if size > limit:
                raise TooLargeError
            fields.append(field)
    except IndexError:
        raise HpackError("the block is cut off") from None
    return fields


def _read_field(block: bytes, at: int, first: int) -> tuple[tuple[bytes, bytes], int]:
    if first & 0x80:
        index, at = _read_integer(block, at, 7)
        return _entry(index), at
    # To be indexed or not makes no difference: a table of size 0 keeps nothing (4.4).
    index, at = _read_integer(block, at, 6 if first & 0x40 else 4)
    name, at = (_entry(index)[0], at) if index else _read_text(block, at)
    value, at = _read_text(block, at)
    return (name, value), at


def _entry(index: int) -> tuple[bytes, bytes]:
    if not 0 < index <= len(_STATIC):
        raise HpackError("there is no such entry")
    return _STATIC[index - 1]


def _read_integer(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    most = (1 << prefix) - 1
    value = block[at] & most
    at += 1
    if value < most:
        return value, at
    for shift in range(0, 29, 7):
        octet = block[at]
        at += 1
        value += (octet & 0x7F) << shift
        if octet < 0x80:  # noqa: PLR2004 the last octet
            return value, at
    raise HpackError("an integer is too large")


def _read_text(block: bytes, at: int) -> tuple[bytes, int]:
    huffman = block[at] & 0x80
    size, at = _read_integer(block, at, 7)
    end = at + size
    if end > len(block):
        raise HpackError("a text is cut off")
    text = block[at:end]
    return (_unpacked(text) if huffman else text), end


def _unpacked(text: bytes) -> bytes:
    """Text out of its Huffman code (5.2)."""
    steps, ends = _automaton()
    unpacked = bytearray()
    state = 0
    for octet in text:
        for half in (octet >> 4, octet & 0xF):
            state, symbol = steps[state][half]
            if state < 0:
                raise HpackError("a text has a code that is never sent")
            if symbol is not None:
                unpacked.append(symbol)
    if state not in ends:
        raise HpackError("a text does not end with the padding it should")
    return bytes(unpacked)


_Steps = list[list[tuple[int, int | None]]]


@functools.cache
def _automaton() -> tuple[_Steps, frozenset[int]]:
    """The next state and the symbol found, by state and the next four bits; the states in which a text may end.

    A state is a place in the tree of codes. No code is shorter than five bits: four find one symbol at most.
    """
    tree: list[dict[int, int]] = [{}]  # a child below zero is a symbol: -1 - symbol
    for symbol, code, length in _codes():
        place = 0
        for shift in range(length - 1, 0, -1):
            bit = code >> shift & 1
            if bit not in tree[place]:
                tree[place][bit] = len(tree)
                tree.append({})
            place = tree[place][bit]
        tree[place][code & 1] = -1 - symbol
    steps = [[_step(tree, place, half) for half in range(16)] for place in range(len(tree))]
    ends, place = [0], 0
    for _ in range(7):  # padding is up to seven ones, the beginning of EOS
        place = tree[place][1]
        ends.append(place)
    return steps, frozenset(ends)


def _step(tree: list[dict[int, int]], place: int, half: int) -> tuple[int, int | None]:
    found: int | None = None
    for shift in (3, 2, 1, 0):
        place = tree[place][half >> shift & 1]
        if place < 0:
            found, place = -1 - place, 0
            if found == _EOS:
                return -1, None
    return place, found


def _codes() -> Iterator[tuple[int, int, int]]:
    """Symbol, code and length, in the order of the codes."""
    code = length = 0
    for symbol in sorted(range(len(_LENGTHS)), key=lambda symbol: (_LENGTHS[symbol], symbol)):
        code <<= _LENGTHS[symbol] - length
        length = _LENGTHS[symbol]
        yield symbol, code, length
        code += 1
