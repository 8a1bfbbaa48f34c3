"""A connection to an A2A agent, by the client of the SDK: protocol 1.0, or 0.3 where the card says so."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

import httpx
import orjson
from a2a.client import Client, ClientConfig, ClientFactory
from a2a.client.card_resolver import parse_agent_card
from a2a.client.errors import A2AClientTimeoutError
from a2a.types import a2a_pb2 as a2a
from a2a.utils import errors
from google.protobuf.json_format import ParseError

from weft import rpc
from weft.agents.remote.a2a import transport
from weft.agents.remote.a2a.states import Progress
from weft.agents.remote.access import Access
from weft.agents.remote.names import clean
from weft.agents.remote.statuses import LONGEST

log = logging.getLogger("weft.agents.remote")

_PATIENCE = 20.0  # seconds for an answer to anything but a message
_CANCELLING = 5.0  # seconds an agent has to take note that nobody waits any more
_FIRST_POLL, _LAST_POLL = 0.2, 5.0  # seconds between looks at a task
_CARD = "/.well-known/agent-card.json"
_BINDINGS = ("JSONRPC", "HTTP+JSON")
_BY_KIND: dict[type[errors.A2AError], tuple[type[rpc.Error], str]] = {
    errors.TaskNotFoundError: (rpc.NotFound, "TASK_NOT_FOUND"),
    errors.TaskNotCancelableError: (rpc.FailedPrecondition, "TASK_NOT_CANCELABLE"),
    errors.UnsupportedOperationError: (rpc.FailedPrecondition, "UNSUPPORTED_OPERATION"),
    errors.ContentTypeNotSupportedError: (rpc.InvalidArgument, "CONTENT_TYPE_NOT_SUPPORTED"),
    errors.ExtensionSupportRequiredError: (rpc.FailedPrecondition, "EXTENSION_SUPPORT_REQUIRED"),
    errors.VersionNotSupportedError: (rpc.FailedPrecondition, "VERSION_NOT_SUPPORTED"),
    errors.InvalidParamsError: (rpc.InvalidArgument, "INVALID_PARAMS"),
    errors.InvalidRequestError: (rpc.InvalidArgument, "INVALID_REQUEST"),
    errors.MethodNotFoundError: (rpc.Unimplemented, "METHOD_NOT_FOUND"),
    errors.InternalError: (rpc.Internal, "REMOTE_INTERNAL"),
    errors.InvalidAgentResponseError: (rpc.Internal, "REMOTE_ANSWER_INVALID"),
    A2AClientTimeoutError: (rpc.Unavailable, "REMOTE_TIMEOUT"),
}


class Session:
    """A connection.

    Attributes:
        card: what the agent says of itself.
        changed: set when it says something else now.
        lost: never set: there is no connection that is kept.
    """

    def __init__(self, access: Access, http: httpx.AsyncClient) -> None:
        self._access = access
        self._http = http
        self._client: Client | None = None
        self._digest = b""
        self._cancelling: set[asyncio.Task[None]] = set()
        self.card = a2a.AgentCard()
        self.changed = asyncio.Event()
        self.lost = asyncio.Event()

    async def look(self) -> a2a.AgentCard:
        """Reads the agent's card, and speaks to it as that says from now on.

        Raises:
            rpc.Error: there is none that can be used.
        """
        body = await self._read_card()
        try:
            card = parse_agent_card(orjson.loads(body))
        except (orjson.JSONDecodeError, ParseError) as wrong:
            raise rpc.Internal(
                f"What is at {self._access.place} is no agent's card.",
                reason="REMOTE_ANSWER_INVALID",
            ) from wrong
        usable = [
            each
            for each in card.supported_interfaces
            if each.protocol_binding in _BINDINGS and self._access.admits(each.url)
        ]
        if not usable:
            offered = ", ".join(
                f"{clean(each.protocol_binding, 20)} at {clean(each.url, 100)}"
                for each in list(card.supported_interfaces)[:5]
            )
            raise rpc.FailedPrecondition(
                f"The agent is to be spoken to by {offered or 'nothing'}, which is another protocol or another host; "
                "hosts are allowed one by one.",
                reason="REMOTE_REFUSED",
            )
        del card.supported_interfaces[:]
        card.supported_interfaces.extend(usable)
        config = ClientConfig(httpx_client=self._http, supported_protocol_bindings=[*_BINDINGS])
        try:
            self._client = ClientFactory(config).create(card)
        except ValueError as wrong:
            said = clean(str(wrong), LONGEST)
            raise rpc.FailedPrecondition(said, reason="REMOTE_REFUSED") from wrong
        self.card, self._digest = card, hashlib.sha256(body).digest()
        return card

    async def probe(self) -> None:
        """Reads the card once more; sets `changed` where it is another.

        Raises:
            rpc.Error: it cannot be read.
        """
        if hashlib.sha256(await self._read_card()).digest() != self._digest:
            self.changed.set()

    async def send(self, request: a2a.SendMessageRequest, progress: Progress) -> None:
        """Sends a message and returns when the agent has settled; cancels its task when nobody waits any more.

        Raises:
            rpc.Error: what went wrong on the way.
        """
        async with contextlib.aclosing(self.stream(request, progress)) as events:
            async for _ in events:
                pass

    async def stream(
        self, request: a2a.SendMessageRequest, progress: Progress
    ) -> AsyncGenerator[a2a.StreamResponse, None]:
        """Sends a message and yields what happens until the agent has settled, as `send`."""
        known = request.message.task_id
        if not (self.card.capabilities.streaming or known):
            # Its id is needed to cancel it.
            request.configuration.return_immediately = True
        # A task that is gone on with may be shown first as it was, which is waiting for this very message.
        stale = bool(known) and self.card.capabilities.streaming
        assert self._client is not None
        try:
            with _told():
                async for event in self._client.send_message(request):
                    progress.take(event)
                    yield event
                    if progress.settled and not (stale and progress.waits):
                        return
                    stale = False
                async for event in self._polled(progress):
                    progress.take(event)
                    yield event
        finally:
            task_id = progress.task.id if progress.task is not None else known
            if task_id and not progress.settled:
                self._cancel(task_id)

    async def _polled(self, progress: Progress) -> AsyncIterator[a2a.StreamResponse]:
        """A task that goes on after its stream ended, or that has none."""
        assert self._client is not None
        pause = _FIRST_POLL
        while progress.task is not None and not progress.settled:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LAST_POLL)
            task = await self._client.get_task(a2a.GetTaskRequest(id=progress.task.id))
            # Once more in full: it stands for all that came before.
            progress.forget()
            yield a2a.StreamResponse(task=task)

    def _cancel(self, task_id: str) -> None:
        cancelling = asyncio.create_task(self._cancelled(task_id))
        self._cancelling.add(cancelling)
        cancelling.add_done_callback(self._cancelling.discard)

    async def _cancelled(self, task_id: str) -> None:
        assert self._client is not None
        try:
            with _told():
                async with asyncio.timeout(_CANCELLING):
                    await self._client.cancel_task(a2a.CancelTaskRequest(id=task_id))
        except rpc.Error as failed:
            log.info("a task could not be cancelled", extra={"why": failed.message})

    async def close(self) -> None:
        """Waits until agents know what they are not to go on with."""
        if self._cancelling:
            await asyncio.gather(*self._cancelling, return_exceptions=True)

    async def _read_card(self) -> bytes:
        url = self._access.remote.url
        if not url.endswith(".json"):
            url = url.rstrip("/") + _CARD
        with _told():
            async with asyncio.timeout(_PATIENCE):
                answer = await self._http.get(url)
        if answer.status_code != httpx.codes.OK:
            raise rpc.Unavailable(
                f"There is no card at {self._access.place}: HTTP status {answer.status_code}.",
                reason="REMOTE_HAS_NO_CARD",
            )
        return answer.content


@contextlib.asynccontextmanager
async def connect(access: Access) -> AsyncIterator[Session]:
    """A connection to an agent."""
    async with transport.client(access) as http:
        session = Session(access, http)
        try:
            yield session
        finally:
            await session.close()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turns what the client raises into errors of RPC."""
    try:
        yield
    except errors.A2AError as failed:
        kind, reason = next(
            (_BY_KIND[each] for each in type(failed).__mro__ if each in _BY_KIND),
            (rpc.Unknown, "REMOTE_ERROR"),
        )
        raise kind(clean(failed.message, LONGEST) or None, reason=reason) from None
    except TimeoutError:
        raise rpc.Unavailable("The agent does not answer.", reason="REMOTE_SILENT") from None
    except (ParseError, KeyError, ValueError, TypeError, AttributeError) as wrong:
        log.info("an answer cannot be read", exc_info=wrong)
        raise rpc.Internal(
            "The agent's answer is not what its protocol says.", reason="REMOTE_ANSWER_INVALID"
        ) from None
