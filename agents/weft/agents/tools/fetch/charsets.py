"""Bytes of the web as text."""

from __future__ import annotations

import codecs
import re

_META = re.compile(
    rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE
)
_LOOKED_AT = 1024  # bytes (WHATWG HTML, "prescan a byte stream")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Those of the web (WHATWG Encoding). Python has others, some of which take time out of all proportion.
_KNOWN = re.compile(
    r"utf-?8|utf-?16(-?[lb]e)?|(us-)?ascii|iso-?8859-?\d{1,2}|latin-?1|windows-?125\d|cp125\d|koi8-[ru]"
    r"|shift[-_]jis|euc-(jp|kr)|iso-2022-jp|gb(2312|k|18030)|big5"
)


def decoded(body: bytes, charset: str) -> str:
    """Text: by its mark, by what the answer said of it, by what a page says of itself, else UTF-8."""
    for mark, name in _MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(name, "replace")
    named = charset
    if not named and (found := _META.search(body[:_LOOKED_AT])) is not None:
        named = found[1].decode("ascii").lower()
    if _KNOWN.fullmatch(named):
        try:
            return body.decode(named, "replace")
        except LookupError:
            pass
    return body.decode("utf-8", "replace")
