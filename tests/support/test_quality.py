from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from weft import rpc
from weft.agents.support import QualityAgent
from weft.agents.support.quality import privacy
from weft.agents.support.quality.review import review
from weft.rpc.testing import channel_for
from weft.support.v1 import quality_pb2, quality_pb2_grpc
from weft.support.v1.support_pb2 import Answer, Citation, Decision, Passage, Verdict

QUESTION = "How long does delivery of my card take?"
CARD = "4111 1111 1111 1111"
IBAN = "DE89 3704 0044 0532 0130 00"


@pytest_asyncio.fixture
async def quality() -> AsyncIterator[quality_pb2_grpc.QualityServiceAsyncStub]:
    async with channel_for(
        quality_pb2_grpc.add_QualityServiceServicer_to_server, QualityAgent()
    ) as channel:
        yield quality_pb2_grpc.QualityServiceStub(channel)


def passage(text: str) -> Passage:
    return Passage(passage_id="cards#time", article_id="cards", title="Delivery", text=text)


def answer(text: str, quote: str) -> Answer:
    citation = Citation(number=1, passage_id="cards#time", article_id="cards", quote=quote)
    return Answer(text=text, citations=[citation])


def extract(*parts: str) -> Verdict:
    """The verdict on an answer that quotes `parts` as they stand."""
    whole = " ".join(parts)
    text = " ".join(f"{part} [1]" for part in parts)
    return review(QUESTION, answer(text, whole), [passage(whole)])


def outcome(verdict: Verdict) -> tuple[str, list[tuple[str, int]]]:
    name = Decision.Name(verdict.decision).removeprefix("DECISION_")
    return name, [(one.check, one.sentence) for one in verdict.findings]


async def test_a_grounded_private_polite_answer_passes(
    quality: quality_pb2_grpc.QualityServiceAsyncStub,
) -> None:
    text = "Delivery takes up to 5 working days. Express delivery takes 2 days."
    response = await quality.Review(
        quality_pb2.ReviewRequest(
            question=QUESTION,
            answer=answer(
                "Delivery takes up to 5 working days. [1] Express delivery takes 2 days. [1]", text
            ),
            passages=[passage(text)],
        )
    )
    assert outcome(response.verdict) == ("PASS", [])


@pytest.mark.parametrize(
    ("sentence", "quote", "why"),
    [
        ("Delivery takes 5 days.", "Delivery takes 5 days.", "cites nothing"),
        ("Delivery takes 5 days. [2]", "Delivery takes 5 days.", "not listed"),
        ("Delivery takes 5 days. [1]", "Delivery takes 6 days.", "does not stand"),
        ("Delivery takes 5 days. [1]", "", "does not stand"),
        ("Delivery takes 15 days. [1]", "Delivery takes 5 days.", "numbers"),
        ("Delivery does not take 5 days. [1]", "Delivery takes 5 days.", "denies"),
        ("Delivery is paid by the emperor of Rome. [1]", "Delivery takes 5 days.", "does not say"),
        ("Yes, you can. [1]", "Delivery takes 5 days.", "does not say"),
        ("Delivery takes 5 days at rome.example. [1]", "Delivery takes 5 days.", "link"),
    ],
)
def test_an_unsupported_sentence_is_found(sentence: str, quote: str, why: str) -> None:
    supported = "Delivery takes 5 days."
    cited = Answer(
        text=f"{supported} [3] {sentence}",
        citations=[
            Citation(number=1, passage_id="cards#time", quote=quote),
            Citation(number=3, passage_id="cards#time", quote=supported),
        ],
    )
    verdict = review(QUESTION, cited, [passage(supported)])
    assert outcome(verdict) == ("REVISE", [("grounding", 1)])
    assert why in verdict.findings[0].detail


@pytest.mark.parametrize(
    ("sentence", "why"),
    [
        ("Delivery takes 5 days.", ""),
        ("Weekends do not count for the delivery.", ""),
        ("Weekends count for the delivery.", "denies"),
        ("On weekends we do not deliver for free.", "does not say"),
        ("See weft.example/delivery for its 5 days.", ""),
        ("See weft.example/refunds for its 5 days.", "link"),
    ],
)
def test_a_sentence_in_other_words_is_held_to_the_sentence_it_is_nearest_to(
    sentence: str, why: str
) -> None:
    quote = "Delivery takes 5 days, see weft.example/delivery. Weekends do not count for delivery."
    verdict = review(QUESTION, answer(f"{sentence} [1]", quote), [passage(quote)])
    assert [finding.check for finding in verdict.findings] == ["grounding"] * bool(why)
    assert why in "".join(finding.detail for finding in verdict.findings)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("part", ["a-", "a.", "a.1", "a-."])
def test_a_text_that_is_nearly_a_link_takes_no_longer_than_others(part: str) -> None:
    quote = f"Delivery takes 5 days {part * 40_000}"
    verdict = review(QUESTION, answer(f"The {quote} [1]", quote), [passage(quote)])
    assert outcome(verdict) == ("PASS", [])


def test_a_passage_that_was_not_given_supports_nothing() -> None:
    verdict = review(QUESTION, answer("Delivery takes 5 days. [1]", "Delivery takes 5 days."), [])
    assert outcome(verdict) == ("ESCALATE", [("grounding", 0)])


SECRETS = [
    (CARD, "card number"),
    ("5500-0000-0000-0004", "card number"),
    (IBAN, "IBAN"),
    ("GB82WEST12345698765432", "IBAN"),
    ("sk-proj-abcdefghij0123456789ABCD", "key or secret"),
    ("ghp_0123456789abcdefghijABCDEFGHIJ", "key or secret"),
    ("AKIAIOSFODNN7EXAMPLE", "key or secret"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "key or secret"),
    ("password: hunter2x", "key or secret"),
    ("wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY0", "key or secret"),
]


@pytest.mark.parametrize(("secret", "kind"), SECRETS)
def test_secrets_are_found_even_where_the_passage_holds_them_and_never_repeated(
    secret: str, kind: str
) -> None:
    verdict = extract("Delivery takes 5 days.", f"Yours is {secret}.")
    decision, findings = outcome(verdict)
    assert decision == "REVISE"
    assert ("privacy", 1) in findings
    details = " ".join(one.detail for one in verdict.findings)
    assert kind in details
    assert secret not in details


@pytest.mark.parametrize("contact", ["jane.doe@example.com", "+49 30 1234567", "0044 20 7946 0958"])
def test_a_contact_leaks_unless_the_passage_publishes_it(contact: str) -> None:
    assert outcome(extract("Delivery takes 5 days.", f"Write to {contact}."))[0] == "PASS"
    said = f"Delivery takes 5 days. [1] Delivery takes 5 days, write to {contact}. [1]"
    verdict = review(
        QUESTION, answer(said, "Delivery takes 5 days."), [passage("Delivery takes 5 days.")]
    )
    assert ("privacy", 1) in outcome(verdict)[1]
    assert contact not in str(verdict)


def test_a_quotation_leaks_too() -> None:
    quote = f"Delivery takes 5 days. Yours is {CARD}."
    verdict = review(QUESTION, answer("Delivery takes 5 days. [1]", quote), [passage(quote)])
    assert outcome(verdict) == ("ESCALATE", [("privacy", -1)])


@pytest.mark.parametrize(
    "harmless",
    [
        "Your number 4111 1111 1111 1112 has a wrong check digit.",
        "The limit is 100,000 euros from 2026-11-20 to 2027-11-20.",
        "The help desk answers from 7:00 to 22:00 every day.",
        "Invoice 1234567 costs 1.50 euros.",
        "Your PIN is shown in the app.",
        "The password is needed at once.",
        "Choose Internationalization-and-localization-of-everything-there-is.",
        "DE00370400440532013000 is no account.",
    ],
)
def test_what_only_looks_like_a_secret_is_let_through(harmless: str) -> None:
    assert list(privacy.leaks(harmless)) == []


@given(st.integers(10**11, 10**17))
def test_every_number_with_a_right_check_digit_is_a_card_number(body: int) -> None:
    digits = next(f"{body}{check}" for check in range(10) if _luhn(f"{body}{check}"))
    found = list(privacy.leaks(f"It is {digits}."))
    assert (len(digits) >= 13) == any(one.kind == "a card number" for one in found)


def _luhn(digits: str) -> bool:
    doubled = [int(one) * 2 for one in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(n - 9 if n > 9 else n for n in doubled)) % 10 == 0


@given(st.text())
def test_any_text_can_be_reviewed(text: str) -> None:
    list(privacy.leaks(text))
    assert review("card", Answer(text=text), []).decision != Decision.DECISION_PASS


@pytest.mark.parametrize(
    "rude",
    [
        "That is a stupid question.",
        "It is your own fault.",
        "You should have read the terms.",
        "We guarantee that it arrives.",
        "It is 100 % safe.",
        "READ THE TERMS FIRST please.",
        "Wait for it!!",
    ],
)
def test_a_bad_tone_is_found(rude: str) -> None:
    assert ("tone", 1) in outcome(extract("Delivery takes 5 days.", rude))[1]


def test_an_answer_that_misses_the_question_goes_to_a_person() -> None:
    text = "Savings earn 2 percent."
    other = Passage(passage_id="cards#time", title="Savings", text=text)
    verdict = review(QUESTION, answer(f"{text} [1]", text), [other])
    assert outcome(verdict) == ("ESCALATE", [("relevance", -1)])


def test_no_answer_goes_to_a_person() -> None:
    assert outcome(review(QUESTION, Answer(), [])) == ("ESCALATE", [("relevance", -1)])


def test_an_answer_with_no_good_sentence_goes_to_a_person() -> None:
    assert outcome(extract("That is a stupid delivery."))[0] == "ESCALATE"


async def test_bad_requests_name_the_field(
    quality: quality_pb2_grpc.QualityServiceAsyncStub,
) -> None:
    for request, field in (
        (quality_pb2.ReviewRequest(), "question"),
        (quality_pb2.ReviewRequest(question="x", answer=Answer(text="x" * 8_001)), "answer.text"),
        (quality_pb2.ReviewRequest(question="x", passages=[Passage()] * 51), "passages"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await quality.Review(request)
        error = rpc.error_from_call(failed.value)
        assert isinstance(error, rpc.InvalidArgument)
        assert [path for path, _ in error.violations] == [field]
