"""How a customer sounds, by the words that carry feeling."""

from __future__ import annotations

import re

from weft.agents.support.triage.signals import Judgement, judge, signal
from weft.support.v1.support_pb2 import (
    SENTIMENT_NEGATIVE,
    SENTIMENT_NEUTRAL,
    SENTIMENT_POSITIVE,
    Sentiment,
)

_PRIORS: dict[Sentiment.ValueType, float] = {
    SENTIMENT_NEUTRAL: 1.2,
    SENTIMENT_NEGATIVE: -0.3,
    SENTIMENT_POSITIVE: -0.6,
}
_NOT = r"(?:not|isn't|wasn't|never|aren't|don't|didn't|no)"

_SIGNALS = (
    signal(
        SENTIMENT_NEGATIVE,
        3.0,
        r"terrible",
        r"horrible",
        r"awful",
        r"unacceptable",
        r"ridiculous",
        r"disgust(?:ed|ing)",
        r"disgrace(?:ful)?",
        r"outrageous",
        r"pathetic",
        r"useless",
        r"incompetent",
        r"furious",
        r"angry",
        r"fed up",
        r"worst",
        r"shame(?:ful)?",
        r"scandal(?:ous)?",
        r"sick of",
        r"lawyer",
        r"hate",
        r"rip[- ]?off",
        rf"{_NOT} (?:at all |very |really )?(?:happy|satisfied|helpful|good enough|good|acceptable|impressed)",
        *(
            r"unverschämt",
            r"frechheit",
            r"inacceptable",
            r"scandaleux",
            r"inaceptable",
            r"vergüenza",
        ),
        *(
            r"vergognoso",
            r"inaccettabile",
            r"vergonha",
            r"inaceitável",
            r"schandalig",
            r"onacceptabel",
        ),
    ),
    signal(
        SENTIMENT_NEGATIVE,
        1.8,
        r"bad",
        r"unhappy",
        r"annoy(?:ed|ing)",
        r"frustrat(?:ed|ing)",
        r"upset",
        r"disappoint(?:ed|ing)",
        r"dissatisfied",
        r"complain(?:t|ing)?",
        r"waste of",
        r"unfair",
        r"rude",
        r"worried",
        r"tired of",
        r"poor (?:service|support)",
        r"makes no sense",
        *(r"ärgerlich", r"enttäuscht", r"déçue?", r"mécontente?", r"enfadad[oa]", r"molest[oa]"),
        *(
            r"delus[oa]",
            r"arrabbiat[oa]",
            r"desiludid[oa]",
            r"chatead[oa]",
            r"teleurgesteld",
            r"boos",
        ),
    ),
    signal(
        SENTIMENT_NEGATIVE,
        1.1,
        r"still (?:not|no|hasn't|have not|haven't|has not|waiting|nothing)",
        r"again and again",
        r"(?:third|fourth|fifth|second) time",
        r"nobody",
        r"keeps? (?:failing|getting)",
        r"for (?:days|weeks|months|ages|hours)",
        r"stolen",
        r"what is going on",
        r"seriously",
        r"why (?:the hell|on earth)",
        r"immediately",
    ),
    signal(SENTIMENT_NEGATIVE, 1.4, r"\w*[!?]*!{2,}", r"\w+\?!+", r"\w+!\?+"),
    signal(
        SENTIMENT_POSITIVE,
        2.8,
        r"(?<!not )(?<!n't )(?<!never )(?:great|excellent|wonderful|fantastic|perfect|awesome|amazing|brilliant)",
        r"(?:love|loving) (?:the|your|this|it)",
        r"thank you (?:so|very) much",
        r"many thanks",
        r"well done",
        r"(?:very|really|so) (?:happy|pleased|helpful|kind|grateful|satisfied)",
        *(r"vielen dank", r"herzlichen dank", r"super", r"merci beaucoup", r"muchas gracias"),
        *(r"grazie mille", r"muito obrigad[oa]", r"hartelijk dank", r"dank u wel"),
    ),
    signal(
        SENTIMENT_POSITIVE,
        1.3,
        r"thanks?",
        r"thank you",
        r"appreciate",
        r"grateful",
        r"(?<!not )(?<!n't )(?<!very un)(?:happy|pleased|nice|kind|glad|helpful)",
        *(r"danke", r"merci", r"gracias", r"grazie", r"obrigad[oa]", r"bedankt"),
    ),
)
_SHOUTED = re.compile(r"\b[A-Z]{4,}\b")
_SHOUTING = signal(SENTIMENT_NEGATIVE, 1.6, r"shouting")


def judge_sentiment(text: str) -> Judgement[Sentiment.ValueType]:
    """How a customer sounds. Two words or more in capitals count as shouting."""
    shouting = len(_SHOUTED.findall(text)) > 1
    return judge(
        f"{text} shouting" if shouting else text,
        _PRIORS,
        (*_SIGNALS, _SHOUTING) if shouting else _SIGNALS,
    )
