"""Percent-decoding of paths and queries.

A path arrives as HTTP servers give it: the raw bytes, as ISO 8859-1 text. Escapes and bytes together must
be UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_SLASH = re.compile("(%2[Ff])")


def decode(text: str) -> str:
    """Decodes all percent-escapes.

    Raises:
        ValueError: an escape is malformed, or the bytes are not UTF-8.
    """
    if "%" not in text and text.isascii():
        return text
    if _BAD_ESCAPE.search(text):
        raise ValueError("has a malformed percent-escape")
    return _utf8(unquote_to_bytes(text.encode("latin-1")))


def decode_except_slash(text: str) -> str:
    """Decodes all percent-escapes but %2F and %2f, which stay as they are (http.proto, multi-segment).

    Raises:
        ValueError: an escape is malformed, or the bytes are not UTF-8.
    """
    if "%" not in text:
        return decode(text)
    return "".join(
        piece if index % 2 else decode(piece) for index, piece in enumerate(_SLASH.split(text))
    )


class FormError(ValueError):
    """A query that is not UTF-8. `name` is the parameter, as it was written."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__("is not UTF-8")


def form_pairs(query: str) -> Iterator[tuple[str, str]]:
    """Name and value of each parameter of a query, in order, by the WHATWG rules for form data.

    `+` is a space, a malformed escape stands for itself, a parameter with no `=` has an empty value. One
    thing is stricter: bytes that are not UTF-8 are refused, where the rules would put U+FFFD.

    Raises:
        FormError: a name or a value is not UTF-8.
    """
    for pair in query.split("&"):
        if not pair:
            continue
        name, _, value = pair.partition("=")
        try:
            yield _form(name), _form(value)
        except ValueError:
            raise FormError(name) from None


def _form(text: str) -> str:
    if "+" in text:
        text = text.replace("+", " ")
    if "%" not in text and text.isascii():
        return text
    return _utf8(unquote_to_bytes(text.encode("latin-1")))


def _utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
