"""What asking a model through Weft adds to the SDK, and what filling a message takes.

The bare SDK and `Model.stream` in turn, against the local Messages server.

first_vs_sdk   time to the first piece of an answer through Weft / by the SDK
whole_vs_sdk   the same of the whole answer

The figures have the p50 of each, and the time to write and to read a message as JSON for a model.

python benchmarks/models.py [--json] [--rounds 200]
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator

import anthropic
import measure

from weft.agents import filling, llm
from weft.testing.messages_server import MessagesServer, scenarios
from weft.v1 import workflow_pb2

MODEL = "claude-sonnet-5-5"
WARMING = 5


async def of_the_sdk(sdk: anthropic.AsyncAnthropic) -> AsyncIterator[str]:
    """Pieces of an answer, by the SDK alone."""
    stream = await sdk.messages.create(
        model=MODEL,
        max_tokens=100,
        messages=[{"role": "user", "content": "hi"}],
        stream=True,
    )
    async for event in stream:
        if event.type == "content_block_delta":
            yield str(event.delta)


async def of_weft(model: llm.Model) -> AsyncIterator[str]:
    """The same through Weft."""
    async for delta in model.stream("hi", max_tokens=100):
        yield delta.text


async def timed(pieces: AsyncIterator[str]) -> tuple[float, float]:
    """Milliseconds until the first piece, and until the last."""
    began, first = time.perf_counter(), 0.0
    async for _ in pieces:
        first = first or time.perf_counter() - began
    return first * 1e3, (time.perf_counter() - began) * 1e3


async def run(rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Measures."""
    ratios: dict[str, list[float]] = {}
    figures: dict[str, float] = {}
    async with MessagesServer() as server:
        server.always(MODEL, scenarios.text("an answer of some fifty words. " * 8))
        endpoint = llm.preset("claude", url=server.url, key="none")
        models = llm.Models({"bench": llm.ModelEntry(endpoint=endpoint, model=MODEL)})
        await models.warm()
        sdk = anthropic.AsyncAnthropic(api_key="none", base_url=server.url, max_retries=0)
        times = []
        for _ in range(rounds + WARMING):
            times.append((await timed(of_the_sdk(sdk)), await timed(of_weft(models["bench"]))))
            server.requests.clear()
        for place, what in enumerate(("first", "whole")):
            kept = [(of_sdk[place], of_weft[place]) for of_sdk, of_weft in times[WARMING:]]
            ratios[f"{what}_vs_sdk"] = [weft / bare for bare, weft in kept]
            for name, each in zip(("sdk", "weft"), zip(*kept, strict=True), strict=True):
                figures[f"{what}_{name}_ms"] = round(statistics.median(each), 3)
        await models.close()
        await sdk.close()
    return ratios, figures | of_filling()


def of_filling() -> dict[str, float]:
    """Microseconds for a workflow of ten nodes."""
    found: dict[str, float] = {}
    message = workflow_pb2.WorkflowSpec(name="bench", input_type="weft.v1.Node")
    for number in range(10):
        message.nodes.add(id=f"node-{number}")
    written = filling.write(message)
    for name, work in (
        ("write", lambda: filling.write(message)),
        ("read", lambda: filling.read(workflow_pb2.WorkflowSpec, written)),
    ):
        began = time.perf_counter()
        for _ in range(1_000):
            work()
        found[f"{name}_workflow_us"] = round((time.perf_counter() - began) * 1e3)
    return found


def main() -> None:
    """The command."""
    options = measure.arguments(__doc__, rounds=200).parse_args()
    ratios, figures = asyncio.run(run(options.rounds))
    measure.report(ratios, figures, as_json=options.json)


if __name__ == "__main__":
    main()
