"""Three debaters who judge whether a number is prime, each with a weakness of its own."""

import re

from weft import rpc
from weft.v1.debater_pb2 import AnswerResponse
from weft.v1.debater_pb2_grpc import DebaterServiceServicer
from weft.v1.workflow_pb2 import Opinion


class Debater(DebaterServiceServicer):
    """Goes by a method of its own, until somebody names a divisor; then it divides."""

    async def Answer(self, request, context):
        number = number_in(request.question)
        opinion = self.judge(number)
        arguments = " ".join(text for peer in request.peers for text in peer.arguments)
        named = [int(each) for each in re.findall(r"(\d+) divides", arguments)]
        if opinion.answer == "yes" and (found := divided(number, named)):
            found.errors_named.append(f"I did not see that {found.argument}")
            opinion = found
        return AnswerResponse(opinion=opinion)


class Small(Debater):
    """Tries three divisors, and takes all else for prime."""

    def judge(self, number):
        prime = Opinion(answer="yes", argument="neither 2, 3 nor 5 divides it")
        return divided(number, (2, 3, 5)) or prime


class Fermat(Debater):
    """Takes what passes Fermat's test for prime, and can name no divisor."""

    def judge(self, number):
        if pow(2, number, number) == 2 % number:
            return Opinion(answer="yes", argument="it passes Fermat's test")
        return Opinion(answer="no", argument="it fails Fermat's test")


class Patient(Debater):
    """Tries all divisors below 100; of larger numbers without one it says nothing."""

    def judge(self, number):
        prime = Opinion(answer="yes" if number < 100**2 else "", argument="nothing divides it")
        return divided(number, range(2, 100)) or prime


def number_in(question):
    """The number that a question is about."""
    if found := re.search(r"\d+", question):
        return int(found[0])
    raise rpc.InvalidArgument("names no number", field="question")


def divided(number, divisors):
    """That a number is not prime, where one of these divides it; else None."""
    for divisor in divisors:
        if 1 < divisor < number and number % divisor == 0:
            return Opinion(answer="no", argument=f"{divisor} divides {number}")
    return None
