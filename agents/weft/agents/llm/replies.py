"""What models are asked and what they answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeAlias, TypeVar

from google.protobuf.message import Message

from weft.agents.llm.usage import NOTHING, Usage

Block: TypeAlias = Mapping[str, Any]
"""A block of content, as the Messages API has it."""

Turns: TypeAlias = Sequence[Mapping[str, Any]]
"""Messages, as the Messages API has them: role and content."""

MessageT = TypeVar("MessageT", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a model is asked.

    Attributes:
        turns: the conversation, the last turn the user's.
        system: what it should know before; what all requests share, so that it may be kept in a cache.
        version: of the prompt it was made of, NAME@VERSION; empty: it is of no file.
        max_tokens: of an answer to it; 0: as the settings say.
        temperature: same; None.
        effort: same; empty.
    """

    turns: Turns
    system: str = ""
    version: str = ""
    max_tokens: int = 0
    temperature: float | None = None
    effort: str = ""

    def then(self, *turns: Mapping[str, Any]) -> Question:
        """The same with further turns."""
        return replace(self, turns=(*self.turns, *turns))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A question with all that goes along with it to an endpoint.

    Attributes:
        tools: as the Messages API has them.
        tool_choice: same; None: as the model likes.
        schema: that the answer must fit; None: any text.
        caches_turns: whether the whole conversation is worth keeping in a cache: it is sent again with more turns.
    """

    question: Question
    max_tokens: int
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: Mapping[str, Any] | None = None
    schema: Mapping[str, Any] | None = None
    temperature: float | None = None
    effort: str = ""
    cache: str = ""
    caches_turns: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """A tool that a model wants to have called.

    Attributes:
        id: by which the result is told.
        name: of the tool.
        arguments: for it; empty where `fault` says that they are broken.
        fault: what is wrong with them; empty: nothing.
    """

    id: str
    name: str
    arguments: Mapping[str, Any]
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer.

    Attributes:
        text: what it says.
        blocks: its content, to go on with the conversation.
        uses: tools that it wants.
        stop: why it ended, as the Messages API says it: end_turn, tool_use, stop_sequence, max_tokens, refusal.
        usage: tokens of all attempts that it took.
        cost: of them, in billionths of a US dollar; None: it is not known.
        model: that answered, as it calls itself.
        endpoint: where.
        fallback: whether it is another model than the one that was asked first.
        attempts: requests that were made.
        prompt: version of the prompt; empty: of no file.
    """

    text: str
    blocks: Sequence[Block] = ()
    uses: Sequence[ToolUse] = ()
    stop: str = "end_turn"
    usage: Usage = NOTHING
    cost: int | None = None
    model: str = ""
    endpoint: str = ""
    fallback: bool = False
    attempts: int = 1
    prompt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled(Generic[MessageT]):
    """A message that a model filled.

    Attributes:
        message: valid by its contract.
        repaired: whether the model had to be told of faults first.
        reply: the answer it was in; usage and cost are of both.
    """

    message: MessageT
    repaired: bool
    reply: Reply

    @property
    def usage(self) -> Usage:
        """Tokens of all requests."""
        return self.reply.usage

    @property
    def cost(self) -> int | None:
        """Billionths of a US dollar; None: not known."""
        return self.reply.cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A piece of an answer as it comes.

    Attributes:
        text: what comes next.
        restart: all that came before is void: another attempt begins.
    """

    text: str = ""
    restart: bool = False


@dataclass(slots=True, kw_only=True)
class Heard:
    """What came of an answer so far."""

    text: list[str] = field(default_factory=list)
    blocks: list[dict[str, Any]] = field(default_factory=list)
    uses: list[ToolUse] = field(default_factory=list)
    usage: Usage = NOTHING
    stop: str = ""
    model: str = ""


def question_of(prompt: str | Turns | Question, system: str = "") -> Question:
    """What is asked by a text, a conversation or a prompt made of a file."""
    if isinstance(prompt, Question):
        return replace(prompt, system=system) if system else prompt
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    return Question(turns=tuple(prompt), system=system)
