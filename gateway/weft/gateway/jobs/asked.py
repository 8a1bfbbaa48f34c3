"""How a caller asks for a job: `Prefer: respond-async` (RFC 7240), and what it says about it in other headers.

The same names are gRPC metadata. What a job needs to know is found here, in one place, for every door.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from weft import rpc
from weft.gateway.guards import caller_deadline
from weft.gateway.guards.idempotency import KEY, parse_key
from weft.gateway.jobs.model import Job, NewJob, Owner, Webhook
from weft.gateway.jobs.own_agent import AGENT
from weft.gateway.jobs.store import Jobs
from weft.gateway.jobs.webhooks import Targets, WrongSecret, new_secret, parse_secret
from weft.gateway.transcoding.catalog import Method
from weft.rpc.call import Call

Headers = Iterable[tuple[bytes, bytes]]

PREFER = b"prefer"
_WEBHOOK, _SECRET = b"job-webhook", b"job-webhook-secret"
_TIME, _KEEP = b"job-time", b"job-keep"
_PREFERENCE = re.compile(rb"\s*([A-Za-z0-9!#$%&'*+.^_`|~-]+)")
_ASYNC = b"respond-async"
_SPAN = re.compile(rb"([0-9]{1,8})([smh]?)")
_UNITS = {b"": 1, b"s": 1, b"m": 60, b"h": 3600}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What came of it.

    Attributes:
        job: the job.
        secret: what its webhook is signed with, where the caller named none; empty otherwise.
    """

    job: Job
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLimits:
    """What callers may ask for."""

    time: timedelta = timedelta(hours=1)
    """How long a job may take at most, and where its caller names no deadline."""
    keep: timedelta = timedelta(hours=24)
    """For how long a job is kept that has ended, at most and where its caller does not say."""
    most_open: int = 1_000
    """Jobs of a caller that have not ended."""


class Asking:
    """Begins the jobs that are asked for.

    Args:
        jobs: where they are stored.
        targets: where webhooks may go.
    """

    def __init__(self, jobs: Jobs, targets: Targets, limits: JobLimits) -> None:
        self._jobs = jobs
        self._targets = targets
        self._limits = limits

    async def begin(self, call: Call, method: Method, request: bytes, headers: Headers) -> Asked:
        """Begins a job for a call that was admitted.

        Raises:
            rpc.InvalidArgument: a header is malformed, or the webhook may not go where it should.
            rpc.Error: see `Jobs.begin`.
        """
        headers = list(headers)
        given = dict(headers)
        limits = self._limits
        webhook, secret = self._webhook(given)
        key = given.get(KEY.encode())
        identity = call.identity
        job = await self._jobs.begin(
            NewJob(
                owner=Owner.of(identity),
                agent=method.agent.name,
                method=method.path,
                request=request,
                identity=identity.SerializeToString() if identity is not None else b"",
                time=_span(given, _TIME, limits.time, headers),
                keep=_keep(given, method, limits.keep),
                streams=method.server_streaming,
                repeatable=method.idempotency.repeatable,
                traceparent=call.traceparent,
                key=parse_key(key.decode("latin-1")) if key else "",
                webhook=webhook,
            )
        )
        return Asked(job=job, secret=secret)

    def times(self, headers: Headers) -> tuple[timedelta, timedelta]:
        """How long a job may take, and is kept, as its caller says.

        Raises:
            rpc.InvalidArgument: a header is malformed.
        """
        given = dict(headers)
        limits = self._limits
        return _span(given, _TIME, limits.time), _span(given, _KEEP, limits.keep)

    def _webhook(self, given: dict[bytes, bytes]) -> tuple[Webhook | None, str]:
        url = given.get(_WEBHOOK, b"").decode("latin-1")
        if not url:
            return None, ""
        self._targets.check(url, field=_WEBHOOK.decode())
        named = given.get(_SECRET, b"").decode("latin-1")
        try:
            text = named or new_secret()
            return Webhook(url=url, secret=parse_secret(text)), "" if named else text
        except WrongSecret as wrong:
            raise rpc.InvalidArgument(str(wrong), field=_SECRET.decode()) from None


def is_asked(method: Method, headers: Headers) -> bool:
    """Whether a call is to be a job, by its caller's wish or its skill's option. Those about jobs never are."""
    always = method.skill.as_job and not method.client_streaming
    return (always or is_preferred(headers)) and method.agent.name != AGENT


def is_preferred(headers: Headers) -> bool:
    """Whether a caller prefers a job."""
    for name, value in headers:
        if name == PREFER:
            for preference in value.split(b","):
                found = _PREFERENCE.match(preference)
                if found is not None and found[1].lower() == _ASYNC:
                    return True
    return False


def _keep(given: dict[bytes, bytes], method: Method, most: timedelta) -> timedelta:
    if _KEEP not in given and method.skill.job_keep > timedelta(0):
        return min(method.skill.job_keep, most)
    return _span(given, _KEEP, most)


def _span(
    given: dict[bytes, bytes], name: bytes, most: timedelta, headers: Headers = ()
) -> timedelta:
    """The length of time in a header; `most` where there is none, nor a timeout of the usual kind in `headers`."""
    if name not in given:
        deadline = caller_deadline(headers, maximum=most)
        return most if deadline is None else deadline.remaining()
    found = _SPAN.fullmatch(given[name].strip())
    if found is None:
        raise rpc.InvalidArgument("give seconds, or 30m, or 12h", field=name.decode())
    return min(most, timedelta(seconds=int(found[1]) * _UNITS[found[2]]))
