"""Names and texts of a remote as a contract can hold them: valid, bounded, the same each time."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_LONGEST = 60  # characters of a name made here
_KEPT = frozenset("\n\t")


def camel(text: str) -> str:
    """A name in CamelCase: "get_weather" becomes GetWeather."""
    name = "".join(word[0].upper() + word[1:].lower() for word in _words(text))
    if not name or name[0].isdigit():
        name = f"X{name or digest(text)}"
    return _cut(name, text)


def snake(text: str) -> str:
    """A name in snake_case: "userId" becomes user_id."""
    name = "_".join(word.lower() for word in _words(text))
    if not name or name[0].isdigit():
        name = f"x_{name or digest(text)}"
    return _cut(name, text)


def digest(text: str) -> str:
    """Six letters that stand for a text."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:6]


def distinct(
    texts: Iterable[str], make: Callable[[str], str], *, taken: Collection[str] = ()
) -> dict[str, str]:
    """Texts with a name each. Those that would have the same all get a suffix, so that none depends on who came first.

    Args:
        texts: what to name; each once.
        make: the name of one.
        taken: names that none may have.
    """
    made = {text: make(text) for text in texts}
    count = Counter(made.values())
    return {
        text: f"{name}_{digest(text)}" if count[name] > 1 or name in taken else name
        for text, name in made.items()
    }


def clean(text: object, most: int) -> str:
    """A text of at most `most` characters with no control or direction characters; empty for what is no text."""
    if not isinstance(text, str):
        return ""
    kept = "".join(
        each if each in _KEPT or unicodedata.category(each)[0] != "C" else " "
        for each in text[: most * 2]
    ).strip()
    return kept if len(kept) <= most else kept[: most - 1] + "…"


def _words(text: str) -> list[str]:
    return _WORDS.findall(text[: _LONGEST * 4])


def _cut(name: str, text: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 7]}_{digest(text)}"
