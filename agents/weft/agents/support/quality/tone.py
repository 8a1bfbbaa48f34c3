"""Words an answer to a customer must not have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_RULES: Mapping[str, tuple[str, ...]] = {
    "It is rude.": (
        r"stupid|idiot(?:ic)?|moron|dumb|shut up|nonsense|ridiculous|silly|lazy|liar|crap|damn",
        r"none of your business|calm down|don't waste (?:my|our) time",
    ),
    "It blames the customer.": (
        r"(?:your|you are) (?:own )?(?:at )?fault|you are wrong|you failed to",
        r"you should have (?:known|read|paid|checked)|you must have (?:done|forgotten|lost)",
        r"you (?:clearly|obviously) (?:did|do|have)",
        r"as (?:i|we) (?:already )?(?:said|told you|explained)",
    ),
    "It promises too much.": (
        r"(?:we|i) (?:absolutely |fully |personally )?(?:guarantee|promise|swear)",
        r"100 ?(?:%|percent) (?:safe|sure|certain|secure)|no risk(?: at all)?|risk[- ]free",
        r"can never fail|will never happen again|never fails|trust me",
    ),
}
_PATTERNS = tuple(
    (fault, re.compile(rf"\b(?:{'|'.join(patterns)})(?!\w)", re.IGNORECASE))
    for fault, patterns in _RULES.items()
)
_SHOUT = re.compile(r"(?:\b[A-Z]{3,}\b[^\w]+){3,}|!{2,}")


def faults(sentence: str) -> Iterator[str]:
    """All that is wrong with the tone of a sentence."""
    plain = sentence.replace("\u2019", "'")  # the typographic apostrophe
    for described, pattern in _PATTERNS:
        if pattern.search(plain):
            yield described
    if _SHOUT.search(f"{plain} "):
        yield "It shouts."
