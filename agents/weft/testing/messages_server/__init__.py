"""A server on this machine that speaks the Messages API: for tests of agents that think, and for people with no key.

    async with MessagesServer() as server:
        server.answer(scenarios.overloaded(), scenarios.text("Hello"))
        ...                                   # whatever calls server.url
        assert server.requests[0].model == "claude-sonnet-5"

`python -m weft.testing.messages_server` runs it by itself. It does not think: it says what it was told to say.
"""

from weft.testing.messages_server import scenarios
from weft.testing.messages_server.scenarios import Scenario
from weft.testing.messages_server.server import MessagesServer, Recorded

__all__ = ["MessagesServer", "Recorded", "Scenario", "scenarios"]
