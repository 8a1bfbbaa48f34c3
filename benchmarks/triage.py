"""Accuracy and latency of the triage agent on labelled customer texts, all through its own RPCs.

    python benchmarks/triage.py --train train.csv              # starts an agent of its own
    python benchmarks/triage.py --train train.csv --registry 127.0.0.1:7070   # asks the running mesh

The file has the columns `text` and `category`. Each of the folds teaches a model all examples but its own, by Teach,
and asks for each of its own, by Classify, one call at a time. The models are deleted after.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import random
import re
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import measure

from weft import embedded, rpc
from weft.agents import support
from weft.support.v1 import triage_pb2, triage_pb2_grpc

REQUEST_SIZE = 1_000  # examples a TeachRequest may hold
TEACH_TIMEOUT = 300.0  # seconds
Example = tuple[str, str]


@dataclass(slots=True, kw_only=True)
class Result:
    """What one fold measured."""

    correct: int = 0
    seconds: list[float] = field(default_factory=list)
    training_seconds: float = 0.0

    @property
    def accuracy(self) -> float:
        """Share of right intents."""
        return self.correct / len(self.seconds)


def read(path: Path) -> list[Example]:
    """Texts with their labels in snake_case, as the contract wants them."""
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    return [(row["text"], re.sub(r"\W+", "", row["category"].lower())) for row in rows]


def stratified(examples: Sequence[Example], folds: int) -> list[list[Example]]:
    """The examples in folds that all hold the same share of each label, the same on every run."""
    by_label: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_label[example[1]].append(example)
    dealt: list[list[Example]] = [[] for _ in range(folds)]
    shuffled = random.Random(0)
    number = 0
    for label in sorted(by_label):
        members = by_label[label]
        shuffled.shuffle(members)
        for member in members:
            dealt[number % folds].append(member)
            number += 1
    return dealt


def lesson(model: str, examples: Sequence[Example]) -> Iterator[triage_pb2.TeachRequest]:
    """The stream that teaches a model."""
    for begin in range(0, len(examples), REQUEST_SIZE):
        yield triage_pb2.TeachRequest(
            model=model,
            examples=[
                triage_pb2.Example(text=text, intent=intent)
                for text, intent in examples[begin : begin + REQUEST_SIZE]
            ],
        )


async def measure_fold(
    triage: triage_pb2_grpc.TriageServiceAsyncStub,
    model: str,
    known: Sequence[Example],
    asked: Sequence[Example],
) -> Result:
    """Teaches a model `known`, asks it for `asked`, and deletes it."""
    result = Result()
    try:
        taught = await triage.Teach(lesson(model, known), timeout=TEACH_TIMEOUT)
        result.training_seconds = taught.training_time.ToTimedelta().total_seconds()
        for text, intent in asked:
            request = triage_pb2.ClassifyRequest(text=text, model=model)
            began = time.perf_counter()
            response = await triage.Classify(request)
            result.seconds.append(time.perf_counter() - began)
            result.correct += response.assessment.intent.value == intent
    finally:
        await triage.DeleteModel(triage_pb2.DeleteModelRequest(model=model))
    return result


@contextlib.asynccontextmanager
async def own_agent() -> AsyncIterator[str]:
    """A triage agent on a PostgreSQL of its own; yields its address."""
    with tempfile.TemporaryDirectory(prefix="weft-") as folder:
        async with (
            embedded.launch(Path(folder) / "data") as endpoints,
            await support.database(endpoints.database_url) as database,
        ):
            agent = support.TriageAgent(database)
            server = rpc.Server()
            server.add(triage_pb2_grpc.add_TriageServiceServicer_to_server, agent)
            async with server:
                yield server.address
            await agent.close()


@contextlib.asynccontextmanager
async def target(address: str, registry: str) -> AsyncIterator[str]:
    """What to call: an address, an agent of a mesh, or an agent of one's own."""
    if address:
        yield address
    elif registry:
        rpc.use_registry(registry)
        yield "xds:///support-triage"
    else:
        async with own_agent() as own:
            yield own


async def run(options: argparse.Namespace) -> list[Result]:
    """All folds, one after the other."""
    folds = stratified(read(options.train), options.folds)
    results: list[Result] = []
    async with (
        target(options.address, options.registry) as called,
        rpc.Channel(called) as channel,
    ):
        triage = triage_pb2_grpc.TriageServiceStub(channel)
        for number, asked in enumerate(folds):
            known = [one for other in folds if other is not asked for one in other]
            results.append(await measure_fold(triage, f"bench-fold-{number + 1}", known, asked))
            done = " done" if number + 1 == len(folds) else ""
            measure.progress(f"fold {number + 1} of {len(folds)}{done}")
    return results


def main() -> None:
    """Runs the measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, required=True, help="CSV with text and category")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--address", default="", help="host:port of a triage agent")
    parser.add_argument("--registry", default="", help="host:port of the registry of a mesh")
    options = parser.parse_args()
    results = asyncio.run(run(options))
    milliseconds = sorted(1_000 * one for result in results for one in result.seconds)
    quantiles = statistics.quantiles(milliseconds, n=100)
    figures = {
        "accuracy": round(statistics.mean(result.accuracy for result in results), 4),
        "accuracy_by_fold": [round(result.accuracy, 4) for result in results],
        "p50_ms": round(quantiles[49], 2),
        "p99_ms": round(quantiles[98], 2),
        "classified": len(milliseconds),
        "training_s": round(statistics.mean(result.training_seconds for result in results), 2),
    }
    measure.report({}, figures, as_json=options.json)


if __name__ == "__main__":
    main()
