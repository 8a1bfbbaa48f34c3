"""How soon a request needs an answer, by what is at risk and how the customer puts it."""

from __future__ import annotations

from weft.agents.support.triage.signals import Judgement, judge, signal
from weft.support.v1.support_pb2 import (
    URGENCY_CRITICAL,
    URGENCY_HIGH,
    URGENCY_LOW,
    URGENCY_NORMAL,
    Urgency,
)

_PRIORS: dict[Urgency.ValueType, float] = {
    URGENCY_NORMAL: 1.0,
    URGENCY_LOW: -0.4,
    URGENCY_HIGH: -0.6,
    URGENCY_CRITICAL: -1.0,
}

_SIGNALS = (
    # Money or access is in somebody else's hands.
    signal(
        URGENCY_CRITICAL,
        4.0,
        r"(?:was|were|been|got|is|have) (?:just )?(?:stolen|robbed|hacked|scammed|defrauded|tricked|phished)",
        r"(?:stole|robbed|hacked|scammed|tricked|took) (?:me|my)",
        r"(?:stolen|hacked) (?:card|phone|wallet|purse|bag|account)",
        r"thie(?:f|ves)",
        r"fraudulent",
        r"unauthori[sz]ed",
        r"(?:some(?:one|body)|thieves|they|he|she) (?:else )?(?:is |are |has |have |was )?"
        r"(?:us(?:ed|ing|es)|spend(?:ing|s)?|spent|access(?:ed|ing)?|got into|took|taking|emptied|stole)",
        r"without my (?:permission|consent|knowledge)",
        r"(?:i )?(?:did not|didn't|never) (?:make|made|authori[sz]e[d]?|approve[d]?|allow(?:ed)?)",
        r"(?:do not|don't|did not|didn't) recogni[sz]e",
        r"(?:payment|purchase|charge|transaction|withdrawal)s? (?:that )?(?:is|are|was|were) (?:not|n't) mine",
        r"not mine",
        r"gave (?:him|her|them|my|a|the|some\w*) .{0,40}(?:pin|code|password|card number|scammer|fraudster)",
        r"money (?:is|was|has) (?:gone|missing|disappeared|vanished)",
        r"(?:has|have|had) access to my",
    ),
    signal(URGENCY_CRITICAL, 1.6, r"fraud", r"identity theft", r"hackers?", r"emptied"),
    signal(
        URGENCY_CRITICAL,
        3.5,
        *(r"gestohlen", r"geklaut", r"betrug", r"betrogen"),
        *(r"vol[ée]e?s?", r"pirat[ée]e?", r"fraude"),
        *(r"robad[oa]", r"robaron", r"estafa(?:ron|do)?"),
        *(r"rubat[oa]", r"truffa", r"roubad[oa]", r"roubaram", r"burla"),
        *(r"gestolen", r"oplichting", r"fraude"),
    ),
    # The customer cannot pay or get in.
    signal(
        URGENCY_HIGH,
        2.6,
        r"urgent(?:ly)?",
        r"asap",
        r"as soon as possible",
        r"emergency",
        r"immediately",
        r"right (?:now|away)",
        r"at once",
        r"stranded",
        r"stuck (?:abroad|in|at|without)",
        r"lost (?:my|the) (?:\w+ )?(?:card|phone|wallet|purse)",
        r"(?:card|wallet|purse) (?:is|was|got|has been) lost",
        r"lost card",
        r"locked out",
        r"(?:block|freeze|stop) (?:my|the|it|this)",
        r"(?:account|card|access) (?:is|was|has been|got|is still) (?:blocked|locked|frozen|restricted)",
        r"(?:swallowed|kept|ate|took) (?:my|the) card",
        r"(?:can't|cannot|can not|unable to) (?:pay|log ?in|sign in|access|buy|use my (?:account|money|card))",
        r"no money (?:left|for)",
        r"wrong (?:account|person|iban|recipient)",
        *(
            r"dringend",
            r"sofort",
            r"gesperrt",
            r"urgente",
            r"urgence",
            r"bloqu[ée]e?",
            r"bloquead[oa]",
        ),
        *(r"bloccat[oa]", r"subito", r"spoed", r"geblokkeerd", r"dringende?"),
    ),
    signal(
        URGENCY_HIGH,
        1.3,
        r"today",
        r"tonight",
        r"need (?:it|this|the money|my money|my card) (?:now|today|by)",
        r"(?:card|payment|transfer|top[- ]?up) (?:was |is |got |keeps? (?:getting |being )?)?"
        r"(?:declined|refused|rejected)",
        r"still (?:not|hasn't|has not)",
    ),
    # Nothing is wrong; the customer wants to know.
    signal(
        URGENCY_LOW,
        1.7,
        r"(?:just )?(?:wondering|curious)",
        r"no (?:rush|hurry)",
        r"whenever you",
        r"in general",
        r"some day",
        r"thinking (?:about|of)",
        r"do you (?:offer|have|support|charge)",
        r"would it be possible",
        r"how (?:can|do) i recogni[sz]e",
        r"keine eile",
        r"sin prisa",
    ),
    signal(
        URGENCY_LOW,
        1.2,
        r"^(?:what|which|who|how (?:much|many|old|does|do|long)|is (?:it|there|the)|are there|can (?:i|you))",
    ),
    signal(URGENCY_LOW, 0.6, r"fees?", r"interest", r"statement"),
)


def judge_urgency(text: str) -> Judgement[Urgency.ValueType]:
    """How soon a request needs an answer."""
    return judge(text, _PRIORS, _SIGNALS)
