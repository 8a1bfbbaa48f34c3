"""Personal data and secrets that must not leave in an answer.

Card numbers are recognised by their check digit (Luhn, ISO/IEC 7812-1), IBANs by theirs (mod 97, ISO 13616).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_CARD = re.compile(r"(?<![\w.,-])\d(?:[ -]?\d){12,18}(?![\w-])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", re.IGNORECASE)
_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_PHONE = re.compile(r"(?<![\w.,])(?:\+|00?)\d{1,3}(?:[ ./-]?\(?\d{1,5}\)?){2,6}(?![\w])")
_SECRET = re.compile(
    r"""
    \b(?:sk|pk|rk)[-_](?:live[-_]|test[-_]|proj[-_])?[A-Za-z0-9_-]{16,}
    | \bgh[pousr]_[A-Za-z0-9]{20,}        # GitHub
    | \bgithub_pat_\w{20,}
    | \bxox[abprs]-[A-Za-z0-9-]{10,}      # Slack
    | \b(?:AKIA|ASIA)[0-9A-Z]{16}\b       # AWS
    | \bAIza[\w-]{30,}                    # Google
    | \bglpat-[\w-]{16,}                  # GitLab
    | \beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*   # JSON Web Token
    | -----BEGIN[ A-Z]*PRIVATE[ ]KEY-----
    | \bBearer\s+[\w.~+/-]{16,}
    | \b(?:password|passwd|api[ _-]?key|secret|token|pin)\s*(?:is|[:=])\s*["']?(?=\S*\d)[^\s"'.,]{4,}
    """,
    re.VERBOSE | re.IGNORECASE,
)
_OPAQUE = re.compile(r"(?<![\w/-])[A-Za-z0-9+/_=-]{32,}(?![\w/-])")
_OPAQUE_BITS = (
    3.5  # Shannon entropy per character; prose and identifiers have less over so few characters
)
_LEAST_PHONE_DIGITS = 8
_LEAST_CARD_DIGITS = 13


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Personal data found. `public` kinds may stand where the cited passage publishes them."""

    kind: str
    public: bool
    value: str


def leaks(text: str) -> Iterator[Leak]:
    """Personal data and secrets in a text."""
    for kind, public, find in _KINDS:
        for value in find(text):
            yield Leak(kind=kind, public=public, value=value)


def _cards(text: str) -> Iterator[str]:
    return (match[0] for match in _CARD.finditer(text) if luhn(_digits(match[0])))


def _ibans(text: str) -> Iterator[str]:
    return (match[0] for match in _IBAN.finditer(text) if mod97(match[0]))


def _emails(text: str) -> Iterator[str]:
    return (match[0] for match in _EMAIL.finditer(text))


def _phones(text: str) -> Iterator[str]:
    for match in _PHONE.finditer(text):
        if len(_digits(match[0])) >= _LEAST_PHONE_DIGITS:
            yield match[0]


def _secrets(text: str) -> Iterator[str]:
    yield from (match[0] for match in _SECRET.finditer(text))
    yield from (match[0] for match in _OPAQUE.finditer(text) if _opaque(match[0]))


_KINDS: tuple[tuple[str, bool, Callable[[str], Iterator[str]]], ...] = (
    ("a card number", False, _cards),
    ("an IBAN", False, _ibans),
    ("an e-mail address", True, _emails),
    ("a phone number", True, _phones),
    ("a key or secret", False, _secrets),
)


def luhn(digits: str) -> bool:
    """Whether digits end with the right Luhn check digit."""
    if len(digits) < _LEAST_CARD_DIGITS or len(set(digits)) == 1:
        return False
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + position % 2)
        total += value - 9 if value > 9 else value  # noqa: PLR2004 the digits of a two-digit number, summed
    return total % 10 == 0


def mod97(iban: str) -> bool:
    """Whether an IBAN has the right check digits."""
    plain = iban.replace(" ", "").upper()
    moved = plain[4:] + plain[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def _digits(text: str) -> str:
    return "".join(character for character in text if character.isascii() and character.isdigit())


def _opaque(token: str) -> bool:
    """Whether a long token looks random: mixed characters and as many bits per character as keys have."""
    kinds = (str.isdigit, str.islower, str.isupper)
    if not all(any(kind(character) for character in token) for kind in kinds):
        return False
    shares = [count / len(token) for count in Counter(token).values()]
    return -sum(share * math.log2(share) for share in shares) >= _OPAQUE_BITS
