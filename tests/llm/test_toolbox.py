"""A model with a toolbox: what its caller may not use does not run, whatever the model wants, and what is wrong it is told."""

from __future__ import annotations

from typing import Any

from tests.tools.callers import VERIFIER, serving, signed

from weft.agents.tools import MemoryAudit, Tool, Toolbox
from weft.agents.tools.calculator import calculator
from weft.testing.messages_server import scenarios as say
from weft.tools.v1.calculator_pb2 import CalculateRequest, CalculateResponse

ANN = signed("user:ann", "tools.calculator")


class Secret:
    """A tool that nobody here may use."""

    def __init__(self) -> None:
        self.ran = 0

    async def __call__(self, request: CalculateRequest) -> CalculateResponse:
        self.ran += 1
        return CalculateResponse(value="secret")

    @property
    def tool(self) -> Tool:
        return Tool(
            name="secret",
            description="Tells a secret.",
            request=CalculateRequest,
            response=CalculateResponse,
            run=self,
            effects=False,
        )


def results(worked: Any) -> list[tuple[str, bool]]:
    return [(call.result, call.is_error) for call in worked.calls]


async def test_a_model_is_offered_and_gets_what_its_caller_may_use(house) -> None:
    secret, audit = Secret(), MemoryAudit()
    house.server.answer(
        say.tools(
            ("calculator", {"expression": "0.1 + 0.2"}),
            ("secret", {"expression": "1"}),
            ("calculator", {"expresion": "1"}),
        ),
        say.text("done"),
    )
    async with Toolbox([calculator(), secret.tool], audit=audit, verifier=VERIFIER) as toolbox:
        worked = await serving(ANN, lambda: house.model().run("?", toolbox))
    assert worked.reply.text == "done"
    assert results(worked) == [
        ('{"value":"0.3","exact":true}', False),
        ("There is no tool 'secret'; there are: calculator.", True),
        (
            "INVALID_ARGUMENT: expression: is missing; expresion: there is no such field",
            True,
        ),
    ]
    assert not secret.ran
    (offered,) = house.server.requests[0].body["tools"]
    assert offered["name"] == "calculator"
    assert offered["input_schema"]["required"] == ["expression"]
    assert sorted((use.tool, outcome.code) for use, outcome in audit.uses) == [
        ("calculator", "INVALID_ARGUMENT"),
        ("calculator", "OK"),
    ]


async def test_tools_of_somebody_else_in_the_hands_of_a_model_ask_again(house) -> None:
    secret, audit = Secret(), MemoryAudit()
    house.server.answer(say.tool("secret", {"expression": "1"}), say.text("done"))
    async with Toolbox([secret.tool], audit=audit, verifier=VERIFIER) as toolbox:

        async def offered() -> Any:
            return toolbox.offered()

        stolen = await serving(signed("user:root", all_scopes=True), offered)
        worked = await serving(ANN, lambda: house.model().run("?", stolen))
    assert results(worked) == [("PERMISSION_DENIED: The caller may not do this.", True)]
    assert not secret.ran
    assert [(use.subject, outcome.reason) for use, outcome in audit.uses] == [
        ("user:ann", "SCOPE_MISSING")
    ]
