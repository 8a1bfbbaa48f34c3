"""One who begins a job, cancels it or follows it, whatever becomes of the gateways meanwhile."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field
from typing import Any

import httpx
from tests.faults.jobs.plan import Kind, Plan
from tests.faults.jobs.receiver import SECRET
from tests.faults.jobs.world import World

_PAUSE = 0.15  # seconds before something is tried again
_BUSY = frozenset({429, 500, 502, 503, 504})
_ENDED = frozenset({"JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED"})


@dataclass(slots=True, kw_only=True)
class Seen:
    """What a caller saw of a job."""

    plan: Plan
    id: str = ""
    ids: set[str] = field(default_factory=set)
    """All that it was told for its one key."""
    cancelled: bool = False
    """Its cancellation was asked for and not refused."""
    ends: list[dict[str, Any]] = field(default_factory=list)
    """The job, as often as it was seen to have ended."""
    live: dict[int, Any] = field(default_factory=dict)
    """Messages as they came, by number."""
    kept: list[tuple[int, Any]] = field(default_factory=list)
    """Messages as they are kept in the end."""
    wrong: list[str] = field(default_factory=list)
    """Answers that nobody expects."""


class Caller:
    """Works through jobs.

    Args:
        http: with a timeout of a few seconds.
    """

    def __init__(self, world: World, http: httpx.AsyncClient, chance: random.Random) -> None:
        self._world = world
        self._http = http
        self._chance = chance
        self.retries = 0

    async def begin(self, plan: Plan) -> Seen:
        """Returns when it was accepted."""
        seen = Seen(plan=plan)
        headers = {
            "prefer": "respond-async",
            "idempotency-key": plan.text,
            "job-webhook": self._world.hook,
            "job-webhook-secret": SECRET,
        }
        path = f"/weft.echo.v1.EchoService/{plan.kind}"
        if plan.kind is Kind.REPEAT:
            path = "/v1/echo:repeat"
        answer = await self._until_answered(seen, "POST", path, json=plan.request, headers=headers)
        seen.id = answer.json()["id"]
        seen.ids.add(seen.id)
        if self._chance.random() < 0.1:
            again = await self._until_answered(
                seen, "POST", path, json=plan.request, headers=headers
            )
            seen.ids.add(again.json()["id"])
        return seen

    async def follow(self, seen: Seen) -> None:
        """Returns when the job has ended."""
        plan = seen.plan
        if plan.cancel_after is not None:
            await asyncio.sleep(plan.cancel_after)
            await self._until_answered(seen, "POST", f"/v1/jobs/{seen.id}:cancel", json={})
            seen.cancelled = True
        while not seen.ends:
            if plan.kind is Kind.REPEAT:
                await self._watch(seen)
            else:
                path = f"/v1/jobs/{seen.id}:wait"
                answer = await self._until_answered(seen, "POST", path, json={"timeout": "2s"})
                self._look_at(seen, answer.json())

    async def look_again(self, seen: Seen) -> None:
        """Sees at every gateway what became of it."""
        for url in self._world.gateways:
            answer = await self._http.get(f"{url}/v1/jobs/{seen.id}")
            self._look_at(seen, answer.json())
        if seen.plan.kind is Kind.REPEAT:
            kept = await self._http.get(
                f"{url}/v1/jobs/{seen.id}:watch", headers={"accept": "application/x-ndjson"}
            )
            for line in kept.text.splitlines():
                if (message := json.loads(line).get("message")) is not None:
                    seen.kept.append((int(message["number"]), message["content"]["json"]))

    async def _watch(self, seen: Seen) -> None:
        """Follows the stream from where it broke off."""
        after = max(seen.live, default=0)
        url = f"{self._url()}/v1/jobs/{seen.id}:watch?after={after}"
        try:
            async with self._http.stream(
                "GET", url, headers={"accept": "application/x-ndjson"}
            ) as stream:
                async for line in stream.aiter_lines():
                    change = json.loads(line)
                    if "error" in change:
                        break
                    if "job" in change:
                        self._look_at(seen, change["job"])
                    else:
                        message = change["message"]
                        seen.live[int(message["number"])] = message["content"]["json"]
        except httpx.HTTPError:
            self.retries += 1
        if not seen.ends:
            await asyncio.sleep(_PAUSE)

    @staticmethod
    def _look_at(seen: Seen, job: dict[str, Any]) -> None:
        if job.get("state") in _ENDED:
            seen.ends.append(job)
        elif seen.ends:
            seen.wrong.append(f"it had ended and is {job.get('state')} again")

    async def _until_answered(
        self, seen: Seen, method: str, path: str, **request: Any
    ) -> httpx.Response:
        while True:
            try:
                answer = await self._http.request(method, f"{self._url()}{path}", **request)
            except httpx.HTTPError:
                self.retries += 1
            else:
                if answer.is_success:
                    return answer
                if answer.status_code not in _BUSY:
                    raise AssertionError(
                        f"{seen.plan.text}: {method} {path}: {answer.status_code} {answer.text}"
                    )
                self.retries += 1
            await asyncio.sleep(_PAUSE * self._chance.uniform(0.5, 1.5))

    def _url(self) -> str:
        return self._chance.choice(self._world.gateways)
