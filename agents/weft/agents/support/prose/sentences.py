"""Sentences of a text. An answer and its review must cut alike, so this is the only place that cuts."""

from __future__ import annotations

import re
from collections.abc import Iterable

# An end mark, closing quotes or brackets, then the citations that belong to the sentence.
_END = re.compile(r"""(?<![.!?…])[.!?…]+["'\u201d\u2019»)\]]*(?:\s*\[\d{1,3}\])*(?=\s|$)""")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:e\.g|i\.e|etc|approx|incl|max|min|mr|mrs|ms|dr|no|st|vs)\.$", re.IGNORECASE
)
_LONGEST_ABBREVIATION = len(" approx.")
_NEXT = re.compile(r"\s*(\S?)")
_MARK = re.compile(r"\[(\d{1,3})\]")
_LAST_MARK = re.compile(r"\[\d{1,3}\]$")


def sentences(text: str) -> tuple[str, ...]:
    """The sentences of `text` in order, each with the citations that follow it. A line end ends a sentence."""
    return tuple(
        sentence for line in text.splitlines() for sentence in _of_line(line.strip()) if sentence
    )


def joined(cut: Iterable[str]) -> str:
    """A text that `sentences` cuts into these again.

    One that would be taken for a part of the one before, as where it begins with a small letter, has a line of its own.
    """
    text = last = ""
    for sentence in cut:
        gap = " " if sentences(f"{last} {sentence}") == (last, sentence) else "\n"
        text, last = f"{text}{gap if text else ''}{sentence}", sentence
    return text


def _of_line(line: str) -> list[str]:
    found: list[str] = []
    begin = 0
    for match in _END.finditer(line):
        end = match.end()
        last = max(begin, end - _LONGEST_ABBREVIATION)
        following = _NEXT.match(line, end)
        if _ABBREVIATION.search(line, last, end) or (following and following[1].islower()):
            continue
        found.append(line[begin:end].strip())
        begin = end
    found.append(line[begin:].strip())
    return found


def marks(sentence: str) -> tuple[int, ...]:
    """Numbers of the citations in a sentence, such as 2 for "[2]"."""
    return tuple(int(number) for number in _MARK.findall(sentence))


def bare(sentence: str) -> str:
    """A sentence without the citations that follow it."""
    text = sentence.strip()
    while match := _LAST_MARK.search(text, max(0, len(text) - 5)):
        text = text[: match.start()].rstrip()
    return text
