"""What asking a model through Weft adds to the SDK, and what filling a message takes.

python benchmarks/models.py [--rounds N]

Prints the p50 of a whole answer and of its first piece, of the bare SDK and of `Model.stream`, interleaved, against the local
Messages server; and the time to write and to read a message as JSON for a model.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncIterator

import anthropic

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


async def main(rounds: int) -> None:
    """Measures."""
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
        for place, what in enumerate(("first piece", "whole answer")):
            bare = statistics.median(of_sdk[place] for of_sdk, _ in times[WARMING:])
            weft = statistics.median(of_weft[place] for _, of_weft in times[WARMING:])
            print(f"{what}: sdk {bare:.2f} ms, weft {weft:.2f} ms, weft / sdk {weft / bare:.2f}")
        await models.close()
        await sdk.close()
    time_filling()


def time_filling() -> None:
    """Measures a workflow of ten nodes."""
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
        print(f"{name} a workflow of ten nodes: {(time.perf_counter() - began) * 1e3:.0f} us")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    asyncio.run(main(parser.parse_args().rounds))
