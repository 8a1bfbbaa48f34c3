"""The answer to a call that became a job: 202, the job, and where to look for it (RFC 7240, 4.1)."""

from __future__ import annotations

import orjson
from google.protobuf import json_format

from weft.gateway.http.exchange import JSON, Exchange, Headers
from weft.gateway.jobs.asked import Asked, is_preferred
from weft.gateway.jobs.shown import Shown

_SHOWN = Shown(lambda _: None)  # it has no result yet


async def send_accepted(exchange: Exchange, asked: Asked, content_type: bytes) -> None:
    """Answers with a job, in JSON or serialized."""
    job = _SHOWN.job(asked.job, outcome=False)
    if content_type is JSON:
        body = orjson.dumps(json_format.MessageToDict(job))
    else:
        body = job.SerializeToString()
    headers: Headers = [
        (b"location", b"/v1/jobs/" + job.id.encode()),
        (b"cache-control", b"no-store"),
    ]
    if is_preferred(exchange.headers):
        headers.append((b"preference-applied", b"respond-async"))
    if asked.secret:
        headers.append((b"job-webhook-secret", asked.secret.encode()))
    await exchange.reply(202, body, content_type, headers)
