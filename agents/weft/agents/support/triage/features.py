"""What the intent model sees of a text: words, pairs of words, and pieces of words."""

from __future__ import annotations

import re
from itertools import pairwise

# Punctuation counts: a question mark tells a question from a report.
_TOKEN = re.compile(r"\w+|[^\w\s]")
_SHORTEST_PIECE = 2
_LONGEST_PIECE = 4


def features(text: str) -> list[str]:
    """Words, pairs of neighbours, and pieces of 2 to 4 characters of each word, its ends marked by < and >.

    The pieces forgive misspellings and join inflections. Never empty for a text that is not blank.
    """
    tokens = _TOKEN.findall(text.lower())
    found = list(tokens)
    found += [f"{one} {next_one}" for one, next_one in pairwise(tokens)]
    for token in tokens:
        found += _pieces(f"<{token}>")
    return found


def _pieces(marked: str) -> list[str]:
    longest = min(_LONGEST_PIECE, len(marked) - 1)
    return [
        marked[begin : begin + size]
        for size in range(_SHORTEST_PIECE, longest + 1)
        for begin in range(len(marked) - size + 1)
    ]
