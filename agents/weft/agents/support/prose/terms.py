"""The words of English prose that carry meaning, reduced to a common form.

A light stemmer in the manner of Porter's (1980): what matters is that "arrives", "arrived" and "arriving" meet, not
that the stem is a word.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
_SHORT = 3  # letters that a stem has at least
_VOWEL = re.compile(r"[aeiouy]")

_STOP = frozenset(
    _WORD.findall(
        """
    a about after again all also always am an and any anybody anyone anything are aren't as at be because been
    before being both but by can can't cannot come could couldn't did didn't do does doesn't doing don't done each
    either else ever every for from get gets getting got had has hasn't have haven't having he hello help her here
    hers hi him his how i i'd i'll i'm i've if in instead into is isn't it it's its itself just let like many may me
    might mine more most much must my need needs never no nor not now of off often on once one only or other our ours
    out over please quite rather really she should since so some somebody someone something still such sure tell than
    thank thanks that that's the their theirs them then there there's these they thing things this those through to
    too under until up us use used using very want wants was wasn't way we well were weren't what what's when where
    where's whether which while who whose why will with within without won't work works would wouldn't yes yet you
    you'd you'll you're you've your yours
    """
    )
)

# Forms that no suffix rule brings together.
_IRREGULAR = {
    "ate": "swallow",
    "atm": "cash machine",
    "atms": "cash machine",
    "bought": "buy",
    "broke": "damage",
    "broken": "damage",
    "cashpoint": "cash machine",
    "chosen": "choose",
    "forgot": "forget",
    "forgotten": "forget",
    "froze": "freeze",
    "frozen": "freeze",
    "gave": "give",
    "given": "give",
    "gone": "go",
    "id": "identity document",
    "kept": "keep",
    "log": "sign",
    "login": "sign",
    "logging": "sign",
    "logged": "sign",
    "lose": "lost",
    "loses": "lost",
    "losing": "lost",
    "mailed": "post",
    "mail": "post",
    "mobile": "phone",
    "paid": "pay",
    "refused": "decline",
    "rejected": "decline",
    "sent": "send",
    "stole": "stolen",
    "steal": "stolen",
    "theft": "stolen",
    "sold": "sell",
    "swallowed": "keep",
    "swallow": "keep",
    "taken": "take",
    "took": "take",
    "topup": "top",
    "topped": "top",
    "wrote": "write",
}


def words(text: str) -> list[str]:
    """Words of a text in lower case, in order."""
    return [word.replace("\u2019", "'") for word in _WORD.findall(text.lower())]


def content(text: str) -> list[str]:
    """Words of a text that are no stop words, as they stand in lower case."""
    return [word for word in words(text) if word not in _STOP]


def terms(text: str) -> list[str]:
    """Stems of the words that carry meaning, in order, with repetitions."""
    return [stem(part) for word in content(text) for part in _IRREGULAR.get(word, word).split()]


def stem(word: str) -> str:
    """The form that a word shares with its inflections: "arrives", "arrived" and "arriving" give "arriv"."""
    word = word.removesuffix("'s").removesuffix("'")
    if len(word) <= _SHORT or not word.isalpha():
        return word
    return _ending(_derivation(_inflection(word)))


def _inflection(word: str) -> str:
    if word.endswith(("ies", "ied")) and len(word) > _SHORT + 1:
        return word[:-3] + "y"
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-2] if word.endswith(("sses", "shes", "ches", "xes")) else word[:-1]
    for suffix in ("ing", "ed"):
        rest = word.removesuffix(suffix)
        if rest != word and len(rest) >= _SHORT and _VOWEL.search(rest):
            return rest
    return word


def _derivation(word: str) -> str:
    for suffix, instead, shortest in (
        ("ication", "y", 9),
        ("ation", "", 8),
        ("ate", "", 7),
        ("at", "", 7),
        ("ment", "", 7),
        ("tion", "t", 7),
        ("sion", "s", 7),
        ("able", "", 7),
        ("al", "", 8),
        ("ly", "", 6),
    ):
        if word.endswith(suffix) and len(word) >= shortest:
            return word.removesuffix(suffix) + instead
    return word


def _ending(word: str) -> str:
    word = word.removesuffix("e") if len(word) > _SHORT else word
    if len(word) > _SHORT and word[-1] == word[-2]:
        word = word[:-1]
    return word[:-1] + "i" if len(word) > _SHORT and word.endswith("y") else word
