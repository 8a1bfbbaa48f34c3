"""Where a quotation stands in a text."""

from __future__ import annotations

import re

from weft.agents.memory.chunking import Span

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")
_SAME = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "-"}
)
_AROUND = "\"'.,;:!?()[]\u2026 "


def place_of(quote: str, text: str) -> Span | None:
    """The first place where `text` says `quote`; None: nowhere.

    Case, kinds of quotation marks and dashes and the space between words may differ, and marks around the quotation.
    """
    sought = _WORD.findall(quote.strip().translate(_SAME).strip(_AROUND))
    if not sought:
        return None
    between = r"\s*"
    parts = []
    for before, word in zip(["", *sought], sought, strict=False):
        apart = r"\s+" if before[-1:].isalnum() and word[:1].isalnum() else between
        parts.append((apart if before else "") + re.escape(word))
    begin = r"(?<!\w)" if sought[0][0].isalnum() else ""
    end = r"(?!\w)" if sought[-1][-1].isalnum() else ""
    # Each mark is translated to one character, so places stay as they are.
    match = re.search(begin + "".join(parts) + end, text.translate(_SAME), re.IGNORECASE)
    return Span(*match.span()) if match else None
