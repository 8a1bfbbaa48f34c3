"""How wide text is, and where it breaks."""

from __future__ import annotations

import unicodedata
from typing import Final

# Widths of Helvetica from space to tilde, in thousandths of its size (Adobe Font Metrics).
_HELVETICA: Final = (
    "278 278 355 556 556 889 667 191 333 333 389 584 278 333 278 278 556 556 556 556 556 556 556 556 556 556 "
    "278 278 584 584 584 556 1015 667 667 722 722 667 611 778 722 278 500 667 556 833 722 778 667 778 722 667 "
    "611 722 667 944 667 667 611 278 278 278 469 556 333 556 556 500 556 556 278 556 556 222 222 500 222 833 "
    "556 556 556 556 333 500 278 556 500 722 500 500 500 334 260 334 584 "
)
_WIDTHS: Final = tuple(map(int, _HELVETICA.split()))
_SLACK: Final = 1.1  # fonts that stand in for Helvetica may be wider
_MONO: Final = 0.61
_OTHER, _WIDE = 620, 1000


def width(text: str, size: float, *, mono: bool = False, bold: bool = False) -> float:
    """How wide a line is at most, in pixels, at a font size in pixels."""
    if mono:
        return sum(2 if _is_wide(each) else 1 for each in text) * _MONO * size
    total = sum(_glyph(each) for each in text)
    return total / 1000 * size * _SLACK * (1.07 if bold else 1)


def _glyph(each: str) -> int:
    at = ord(each) - 32
    if 0 <= at < len(_WIDTHS):
        return _WIDTHS[at]
    return _WIDE if _is_wide(each) else _OTHER


def _is_wide(each: str) -> bool:
    return unicodedata.east_asian_width(each) in "WF"


def shortened(text: str, most: int) -> str:
    """A text on one line of at most so many characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= most else f"{flat[: most - 1]}…"


def wrapped(text: str, columns: int, lines: int) -> list[str]:
    """A text in lines; what is more than so many lines is cut."""
    found: list[str] = []
    line = ""
    for word in text.split():
        for piece in _pieces(word, columns):
            if line and len(line) + 1 + len(piece) > columns:
                found.append(line)
                line = piece
            else:
                line = f"{line} {piece}" if line else piece
    if line:
        found.append(line)
    if len(found) > lines:
        found = [*found[: lines - 1], shortened(f"{found[lines - 1]} {found[lines]}", columns)]
    return found


def _pieces(word: str, columns: int) -> list[str]:
    return [word[at : at + columns] for at in range(0, len(word), columns)]
