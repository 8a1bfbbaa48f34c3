"""How well and how fast long-term memory is searched.

Quality: MRR@10 (mean reciprocal rank of the first right article among the first ten, 0 where there is none) and recall@10 of
search by words, by meaning and by both over the articles of the support fleet, for questions that were written for this in
customers' words (data/support_questions.csv), and for those of a public set, Banking77, whose intent some article is about.
For comparison, the fleet's own search (support-research). The model is all-MiniLM-L6-v2 on the CPU.

Speed: searches over 100,000 chunks in an index, of made-up texts whose words are as frequent as those of English (Zipf) and
whose vectors lie in clusters, as those of texts do; the time to embed a question is measured apart, with the model.

hybrid_vs_lexical   MRR@10 of hybrid - that of lexical, of the written questions
search_p95_ms       of one search at a time, in the database and around it

python benchmarks/retrieval.py --weights FOLDER [--json] [--chunks 100000] [--searches 400] [--public train.csv]

Without --weights, quality is that of words alone.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import itertools
import os
import random
import re
import statistics
import tempfile
import time
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import measure
import numpy as np

from weft import embedded
from weft.agents.memory import Document, Knowledge, Library, SearchSettings, Way, database
from weft.agents.memory.embedding import Embedder, Vectors, checked
from weft.agents.memory.embedding.local import LocalEmbedder
from weft.agents.support.fleet import database as support_database
from weft.agents.support.research import ResearchAgent
from weft.agents.support.research.shelf import Shelf

HERE = Path(__file__).resolve().parent
QUESTIONS = HERE / "data" / "support_questions.csv"
DEPTH = 10
FIGURES = 4
PUBLIC = 400  # questions of the public set
TOPICS, WORDS, TOPIC_WORDS = 2_000, 50_000, 12
DIMENSIONS = 384
CHUNK_WORDS = 150
DOCUMENT_CHUNKS = 20
WRITERS = 4
_TOPIC = re.compile(r"\bt(\d+)x\d+")


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question and the articles that answer it."""

    text: str
    articles: frozenset[str]


Ask = Callable[[str], Awaitable[Sequence[str]]]
"""Ids of the articles found, best first."""


def written(path: Path) -> list[Question]:
    """The questions of a file."""
    with path.open(encoding="utf-8", newline="") as lines:
        return [
            Question(text=row["question"], articles=frozenset(row["articles"].split("|")))
            for row in csv.DictReader(lines)
        ]


def public(path: Path, articles: Mapping[str, str]) -> list[Question]:
    """Questions of Banking77 whose intent an article names, the same on every run."""
    about: dict[str, set[str]] = defaultdict(set)
    for article, text in articles.items():
        named = re.search(r"^intents:(.*)$", text, re.MULTILINE)
        for intent in named[1].split(",") if named else ():
            about[intent.strip()].add(article)
    with path.open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["category"] in about]
    chosen = random.Random(77).sample(rows, min(PUBLIC, len(rows)))
    return [
        Question(text=row["text"].strip(), articles=frozenset(about[row["category"]]))
        for row in chosen
    ]


async def judged(questions: Sequence[Question], ask: Ask) -> dict[str, float]:
    """MRR@10 and recall@10."""
    ranks = []
    for question in questions:
        found = list(dict.fromkeys(await ask(question.text)))[:DEPTH]
        places = [place for place, id_ in enumerate(found, 1) if id_ in question.articles]
        ranks.append(1 / places[0] if places else 0.0)
    return {
        "mrr_at_10": round(statistics.mean(ranks), FIGURES),
        "recall_at_10": round(sum(rank > 0 for rank in ranks) / len(ranks), FIGURES),
    }


def searching(library: Library, way: Way) -> Ask:
    """A way to search a library."""

    async def ask(text: str) -> list[str]:
        found = await library.search(text, limit=40, way=way)
        assert found.way is way, found.because
        return [hit.citation.document for hit in found.hits]

    return ask


@asynccontextmanager
async def fleets_own(url: str, embedder: Embedder | None) -> AsyncIterator[Ask]:
    """The search of support-research."""
    async with await support_database(url) as store:
        await ResearchAgent(store).import_shipped()
        shelf = Shelf(store, embedder)

        async def ask(text: str) -> list[str]:
            hits = await shelf.search(text, intent="", limit=40)
            return [hit.citation.document.partition("#")[0] for hit in hits]

        async with shelf.kept() as knowledge:
            if embedder:
                await knowledge.versions.fill(embedder.name)
            yield ask


async def quality(url: str, embedder: Embedder | None, banking: Path | None) -> dict[str, object]:
    """How well articles are found."""
    folder = resources.files("weft.agents.support").joinpath("knowledge")
    articles = {f.name.removesuffix(".md"): f.read_text("utf-8") for f in folder.iterdir()}
    sets = {"written": written(QUESTIONS)}
    if banking is not None:
        sets["banking77"] = public(banking, articles)
    found: dict[str, object] = {}
    async with (
        await database(url) as store,
        fleets_own(url, None) as by_words,
        fleets_own(url, embedder) as own,
    ):
        knowledge = Knowledge(store, [embedder] if embedder else [])
        await knowledge.versions.register()
        library = knowledge.of("quality")
        begun, chunks = time.perf_counter(), 0
        for id_, text in articles.items():
            chunks += (await library.add(Document(id=id_, text=text))).chunks
        spent = time.perf_counter() - begun
        ways = [Way.LEXICAL, Way.VECTOR, Way.HYBRID] if embedder else [Way.LEXICAL]
        for name, questions in sets.items():
            of_set: dict[str, object] = {"questions": len(questions)}
            for way in ways:
                of_set[way] = await judged(questions, searching(library, way))
            of_set["support_research_lexical"] = await judged(questions, by_words)
            if embedder:
                of_set["support_research_hybrid"] = await judged(questions, own)
            found[name] = of_set
        if embedder:
            found["articles_ingested_chunks_per_second"] = round(chunks / spent, 1)
            found["question_embedded_p50_ms"] = await question_time(embedder, sets["written"])
    return found


async def question_time(embedder: Embedder, questions: Sequence[Question]) -> float:
    """Median milliseconds to embed a question."""
    spent = []
    for question in questions:
        begun = time.perf_counter()
        await embedder.embed([question.text], question=True)
        spent.append(time.perf_counter() - begun)
    return round(statistics.median(spent) * 1_000, 2)


class MadeUp:
    """Embeds made-up texts: near the centre of the topic whose words they hold."""

    name = "made-up"
    dimensions = DIMENSIONS

    def __init__(self) -> None:
        dice = np.random.default_rng(5)
        self._centres = dice.standard_normal((TOPICS, DIMENSIONS), np.float32)

    async def embed(self, texts: Sequence[str], *, question: bool = False) -> Vectors:
        """A vector of length 1 for each text."""
        del question
        topics = [int(found[1]) if (found := _TOPIC.search(text)) else 0 for text in texts]
        # The same text has the same vector.
        noise = [
            np.random.default_rng(zlib.crc32(text.encode())).standard_normal(DIMENSIONS, np.float32)
            for text in texts
        ]
        rows = self._centres[topics] + 0.8 * np.array(noise, np.float32).reshape(-1, DIMENSIONS)
        return checked(rows, texts=len(texts), dimensions=DIMENSIONS)


class Author:
    """Makes texts up: the word of rank r is as frequent as 1 / r, beside words of the topic."""

    def __init__(self) -> None:
        self._dice = np.random.default_rng(6)
        shares = 1 / np.arange(1, WORDS + 1)
        self._sums = np.cumsum(shares / shares.sum())

    def words(self, topic: int, count: int, own: int) -> str:
        """Words, `own` of them of the topic."""
        ranks = np.searchsorted(self._sums, self._dice.random(count - own))
        plain = [f"w{rank}" for rank in ranks]
        mine = [f"t{topic}x{self._dice.integers(TOPIC_WORDS)}" for _ in range(own)]
        mixed = [*plain, *mine]
        self._dice.shuffle(mixed)
        return " ".join(mixed)

    def document(self) -> str:
        """A text of twenty chunks, in sentences of ten words."""
        sections = []
        for number in range(DOCUMENT_CHUNKS):
            topic = int(self._dice.integers(TOPICS))
            words = self.words(topic, CHUNK_WORDS, 12).split()
            sentences = [
                " ".join(words[begin : begin + 10]) + "." for begin in range(0, len(words), 10)
            ]
            sections.append(f"## Part {number}\n\n" + " ".join(sentences))
        return "# A text\n\n" + "\n\n".join(sections)

    def question(self) -> str:
        """Words of a topic among others; every fourth question has common words alone."""
        topic = int(self._dice.integers(TOPICS))
        return self.words(topic, 8, 0 if self._dice.random() < 0.25 else 2)


async def speed(url: str, chunks: int, searches: int) -> dict[str, object]:
    """How fast many chunks are stored and searched."""
    async with await database(url) as store:
        knowledge = Knowledge(store, [MadeUp()])
        await knowledge.versions.register()
        library = knowledge.of("speed")
        author = Author()
        begun = time.perf_counter()
        stored = await ingested(library, author, chunks)
        spent = time.perf_counter() - begun
        await analyzed(url)
        questions = [author.question() for _ in range(searches)]
        for question in questions[:20]:
            await library.search(question)
        found: dict[str, object] = {
            "load": round(os.getloadavg()[0], 1),
            "chunks": stored,
            "ingested_chunks_per_second": round(stored / spent, 1),
        }
        for way in (Way.HYBRID, Way.LEXICAL, Way.VECTOR):
            found[way] = await timed(url, library, questions, way)
        found["recall_at_10_of_index"] = await index_recall(library, questions[:50])
    return found


async def ingested(library: Library, author: Author, chunks: int) -> int:
    """Stores documents until there are so many chunks; returns how many there are."""
    numbers = itertools.count()
    stored = 0

    async def write() -> None:
        nonlocal stored
        while stored < chunks:
            added = await library.add(Document(id=f"text-{next(numbers)}", text=author.document()))
            stored += added.chunks

    async with asyncio.TaskGroup() as group:
        for _ in range(WRITERS):
            group.create_task(write())
    return stored


async def analyzed(url: str) -> None:
    """Does what autovacuum does after a while."""
    import asyncpg

    connection = await asyncpg.connect(url)
    await connection.execute("vacuum analyze")
    await connection.close()


async def server_seconds(url: str) -> float:
    """Seconds of processor time that the connections of PostgreSQL have taken."""
    import asyncpg

    connection = await asyncpg.connect(url)
    rows = await connection.fetch(
        "select pid from pg_stat_activity where application_name = 'weft-memory'"
    )
    await connection.close()
    return sum(measure.cpu_of(row["pid"]) for row in rows)


async def timed(url: str, library: Library, questions: Sequence[str], way: Way) -> dict[str, float]:
    """Milliseconds of one search at a time, and processor time of PostgreSQL for one."""
    spent = []
    before = await server_seconds(url)
    for question in questions:
        begun = time.perf_counter()
        await library.search(question, way=way)
        spent.append((time.perf_counter() - begun) * 1_000)
    spent.sort()
    return {
        "p50_ms": round(statistics.median(spent), 2),
        "p95_ms": round(spent[int(len(spent) * 0.95)], 2),
        "p99_ms": round(spent[int(len(spent) * 0.99)], 2),
        "server_cpu_ms": round((await server_seconds(url) - before) * 1_000 / len(spent), 2),
    }


async def index_recall(library: Library, questions: Sequence[str]) -> float:
    """Share of the ten nearest chunks, as found by comparing all, that the index finds too."""
    exact = library.with_settings(SearchSettings(exact=10_000_000))
    shares = []
    for question in questions:
        if not _TOPIC.search(question):
            continue
        near = await library.search(question, way=Way.VECTOR, limit=DEPTH)
        all_ = await exact.search(question, way=Way.VECTOR, limit=DEPTH)
        places = {(hit.citation.document, hit.citation.begin) for hit in all_.hits}
        found = {(hit.citation.document, hit.citation.begin) for hit in near.hits}
        shares.append(len(places & found) / len(places))
    return round(statistics.mean(shares), FIGURES)


async def run(given: argparse.Namespace) -> dict[str, object]:
    """All that is measured."""
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="weft-", dir="/tmp") as folder:
        Path(folder).chmod(0o711)  # noqa: ASYNC240 before anything runs
        async with embedded.launch(Path(folder) / "data") as servers:
            if given.only != "speed":
                embedder = await LocalEmbedder.open(given.weights) if given.weights else None
                found["quality"] = await quality(servers.database_url, embedder, given.public)
                if embedder:
                    await embedder.close()
            if given.only != "quality":
                found["speed"] = await speed(servers.database_url, given.chunks, given.searches)
    return found


def headline(found: Mapping[str, object]) -> dict[str, list[float]]:
    """The figures that have a bar."""
    bars: dict[str, list[float]] = {}
    match found:
        case {"quality": {"written": {"hybrid": hybrid, "lexical": lexical}}}:
            assert isinstance(hybrid, dict)
            assert isinstance(lexical, dict)
            difference = hybrid["mrr_at_10"] - lexical["mrr_at_10"]
            bars["hybrid_vs_lexical"] = [round(difference, FIGURES)]
    match found:
        case {"speed": {"hybrid": {"p95_ms": p95}}}:
            assert isinstance(p95, float)
            bars["search_p95_ms"] = [p95]
    return bars


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--weights", type=Path, help="folder with the weights of the model")
    parser.add_argument("--public", type=Path, help="Banking77, train.csv")
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--searches", type=int, default=400)
    parser.add_argument("--only", choices=["quality", "speed"])
    given = parser.parse_args()
    found = asyncio.run(run(given))
    measure.report(headline(found), found, as_json=given.json)


if __name__ == "__main__":
    main()
