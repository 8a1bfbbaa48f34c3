from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.agents.support.triage import shipped
from weft.agents.support.triage.features import features
from weft.agents.support.triage.language import UNDETERMINED, LanguageProfiles
from weft.agents.support.triage.lesson import Example
from weft.agents.support.triage.model import IntentModel
from weft.agents.support.triage.sentiment import judge_sentiment
from weft.agents.support.triage.urgency import judge_urgency
from weft.support.v1.support_pb2 import Sentiment, Urgency


@pytest.mark.parametrize(
    ("text", "urgency"),
    [
        ("My card was stolen and somebody is using it", "CRITICAL"),
        ("There is a payment I did not make", "CRITICAL"),
        ("I gave my code to a scammer on the phone", "CRITICAL"),
        ("my account was hacked!!", "CRITICAL"),
        ("Meine Karte wurde gestohlen", "CRITICAL"),
        ("On m'a volé ma carte", "CRITICAL"),
        ("I lost my card on the train", "HIGH"),
        ("I cannot sign in and need help urgently", "HIGH"),
        ("The machine kept my card", "HIGH"),
        ("My transfer has not arrived", "NORMAL"),
        ("I am still waiting on my card?", "NORMAL"),
        ("What are your fees?", "LOW"),
        ("Just wondering how much interest you pay", "LOW"),
        ("How can I recognise phishing?", "LOW"),
    ],
)
def test_urgency(text: str, urgency: str) -> None:
    judged = judge_urgency(text)
    assert Urgency.Name(judged.value) == f"URGENCY_{urgency}"
    assert 0.25 < judged.confidence <= 1


@pytest.mark.parametrize(
    ("text", "sentiment"),
    [
        ("This is terrible, nobody helps me!!", "NEGATIVE"),
        ("I am not happy with this", "NEGATIVE"),
        ("WHERE IS MY MONEY", "NEGATIVE"),
        ("Das ist eine Frechheit", "NEGATIVE"),
        ("Where do I find my IBAN?", "NEUTRAL"),
        ("How do I close my account?", "NEUTRAL"),
        ("Thank you so much, that was very helpful", "POSITIVE"),
        ("Great service, thanks", "POSITIVE"),
        ("Muchas gracias", "POSITIVE"),
    ],
)
def test_sentiment(text: str, sentiment: str) -> None:
    judged = judge_sentiment(text)
    assert Sentiment.Name(judged.value) == f"SENTIMENT_{sentiment}"
    assert 1 / 3 < judged.confidence <= 1


@pytest.fixture(scope="module")
def profiles() -> LanguageProfiles:
    return LanguageProfiles(shipped.language_samples())


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("Why is my payment still pending?", "en"),
        ("Warum wird meine Zahlung noch nicht angezeigt?", "de"),
        ("Pourquoi mon paiement est-il toujours en attente ?", "fr"),
        ("¿Por qué mi pago sigue pendiente desde ayer?", "es"),
        ("Perché il mio pagamento è ancora in sospeso?", "it"),
        ("Porque é que o meu pagamento ainda está pendente?", "pt"),
        ("Waarom staat mijn betaling nog steeds open?", "nl"),
    ],
)
def test_language(profiles: LanguageProfiles, text: str, tag: str) -> None:
    detected = profiles.detect(text)
    assert (detected.tag, detected.confidence > 0.9) == (tag, True)


@pytest.mark.parametrize("text", ["12345", "???", "Где моя карта", "我的卡在哪里"])
def test_a_text_without_latin_words_has_no_language(profiles: LanguageProfiles, text: str) -> None:
    assert profiles.detect(text).tag == UNDETERMINED


def test_languages_are_told_apart_on_sentences_not_learned() -> None:
    samples = shipped.language_samples()
    right = 0
    for fold in range(5):
        learned = LanguageProfiles([one for n, one in enumerate(samples) if n % 5 != fold])
        held_out = [one for n, one in enumerate(samples) if n % 5 == fold]
        right += sum(learned.detect(text).tag == tag for text, tag in held_out)
    assert right / len(samples) >= 0.9


def test_the_shipped_examples_teach_what_they_do_not_hold() -> None:
    # An order that has nothing to do with the intents, the same on every run.
    examples = sorted(shipped.examples(), key=lambda one: sha256(one.text.encode()).digest())
    cut = len(examples) // 5
    model = IntentModel.train(examples[cut:])
    right = sum(model.guesses(one.text)[0].intent == one.intent for one in examples[:cut])
    assert len(examples) >= 250
    assert right / cut >= 0.65


def test_confidences_are_probabilities_and_honest() -> None:
    examples = shipped.examples()
    held_out = examples[::5]
    model = IntentModel.train([one for n, one in enumerate(examples) if n % 5])
    firsts = [(model.guesses(one.text)[0], one.intent) for one in held_out]
    accuracy = sum(guess.intent == intent for guess, intent in firsts) / len(firsts)
    claimed = sum(guess.confidence for guess, _ in firsts) / len(firsts)
    assert abs(accuracy - claimed) < 0.15


def test_guesses_are_the_best_first_and_sum_to_one() -> None:
    model = IntentModel.train(shipped.examples())
    guesses = model.guesses("my card was declined", most=len(model.intents))
    assert guesses[0].intent == "card_declined"
    assert [one.confidence for one in guesses] == sorted(
        (one.confidence for one in guesses), reverse=True
    )
    assert sum(one.confidence for one in guesses) == pytest.approx(1, abs=1e-4)


def test_two_intents_are_enough_and_one_is_not() -> None:
    two = [Example(text="my card", intent="card"), Example(text="my money", intent="money")]
    assert [one.intent for one in IntentModel.train(two).guesses("card")] == ["card", "money"]
    with pytest.raises(ValueError, match="two intents"):
        IntentModel.train(two[:1])


def test_contradicting_examples_are_survived() -> None:
    texts = ["a", "a ", "a  ", " a"] * 3
    examples = [Example(text=text, intent=f"i{n % 2}") for n, text in enumerate(texts)]
    assert IntentModel.train(examples).guesses("a")[0].confidence < 0.9


@given(st.text(min_size=1).filter(str.strip))
def test_every_text_that_is_not_blank_has_features(text: str) -> None:
    assert features(text)


@given(st.text())
def test_judgements_take_any_text(text: str) -> None:
    profiles = LanguageProfiles([("the card", "en"), ("die Karte", "de")])
    for judged in (judge_urgency(text), judge_sentiment(text), profiles.detect(text)):
        assert 0 < judged.confidence <= 1
