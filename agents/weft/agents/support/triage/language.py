"""The language of a text: naive Bayes over words and pieces of words, learned from sample sentences."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

_WORD = re.compile(r"[^\W\d_]+")
_NOT_LATIN = re.compile(r"[^\W\d_\u0000-\u024f\u1e00-\u1eff]")
_SMOOTHING = 0.2
# Pieces of a word overlap, so their evidence counts less than its number says.
_INDEPENDENCE = 0.35
UNDETERMINED = "und"  # BCP 47


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """A BCP 47 tag and its probability."""

    tag: str
    confidence: float


class LanguageProfiles:
    """Tells apart the languages it has samples of."""

    def __init__(self, samples: Iterable[tuple[str, str]]) -> None:
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for text, tag in samples:
            counts[tag].update(_pieces(text))
        size = len(set().union(*counts.values()))
        self._logs: dict[str, dict[str, float]] = {}
        self._unseen: dict[str, float] = {}
        for tag, counter in counts.items():
            total = counter.total() + _SMOOTHING * size
            self._unseen[tag] = math.log(_SMOOTHING / total)
            self._logs[tag] = {
                piece: math.log((count + _SMOOTHING) / total) for piece, count in counter.items()
            }

    def detect(self, text: str) -> Language:
        """The most probable language; "und" when the text has no words, or is in another script."""
        pieces = _pieces(text)
        if not pieces or len(_NOT_LATIN.findall(text)) * 2 > len("".join(_WORD.findall(text))):
            return Language(tag=UNDETERMINED, confidence=1.0)
        scores = {
            tag: _INDEPENDENCE * sum(logs.get(piece, self._unseen[tag]) for piece in pieces)
            for tag, logs in self._logs.items()
        }
        best = max(scores, key=lambda tag: (scores[tag], tag))
        total = sum(math.exp(score - scores[best]) for score in scores.values())
        return Language(tag=best, confidence=1.0 / total)


def _pieces(text: str) -> list[str]:
    """Each word, and its pieces of 1 to 3 characters with its ends marked."""
    found: list[str] = []
    for word in _WORD.findall(text.lower()):
        marked = f" {word} "
        found.append(marked)
        for size in (1, 2, 3):
            found += [marked[begin : begin + size] for begin in range(len(marked) - size + 1)]
    return found
