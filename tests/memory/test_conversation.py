"""Conversations are bounded, summed up by whoever can, and gone after a while."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest
import redis.asyncio

from weft import embedded, rpc
from weft.agents.memory import (
    Conversations,
    ConversationSettings,
    Made,
    MemoryUnavailable,
    Role,
    Turn,
    WorkingMemory,
    WorkingSettings,
)

FEW = ConversationSettings(most=4, least=2)


def said(*texts: str) -> list[Turn]:
    return [Turn(role=Role.USER, text=text) for text in texts]


async def test_what_was_said_is_recalled_in_order(client: redis.asyncio.Redis):
    conversation = Conversations(client).of("acme", "1")
    turns = [
        Turn(role=Role.USER, text="Where is my card? 🙂"),
        Turn(role=Role.ASSISTANT, text="On its way.", name="support-solution"),
        Turn(role=Role.TOOL, text="{}", name="crm"),
    ]
    await conversation.append(*turns[:1])
    await conversation.append(*turns[1:])
    recalled = await conversation.recall()
    assert recalled.summary is None
    assert list(recalled.turns) == turns


async def test_what_is_too_much_is_summed_up_by_what_the_agent_gives(client: redis.asyncio.Redis):
    asked = []

    async def summarise(before: str, turns: Sequence[Turn]) -> str:
        asked.append((before, [turn.text for turn in turns]))
        return f"summary {len(asked)}"

    conversation = Conversations(client, summarise=summarise, settings=FEW).of("acme", "1")
    for text in "abcdefgh":
        await conversation.append(*said(text))
    recalled = await conversation.recall()
    assert asked == [("", ["a", "b", "c"]), ("summary 1", ["d", "e", "f"])]
    assert recalled.summary is not None
    assert (recalled.summary.text, recalled.summary.made, recalled.summary.turns) == (
        "summary 2",
        Made.WRITTEN,
        6,
    )
    assert [turn.text for turn in recalled.turns] == ["g", "h"]


async def hangs(before: str, turns: Sequence[Turn]) -> str:
    await asyncio.sleep(3600)
    return ""


async def fails(before: str, turns: Sequence[Turn]) -> str:
    raise RuntimeError


async def says_nothing(before: str, turns: Sequence[Turn]) -> str:
    return " \n"


@pytest.mark.parametrize("summarise", [None, hangs, fails, says_nothing])
async def test_where_it_cannot_first_sentences_are_taken_and_it_says_so(
    client: redis.asyncio.Redis, summarise
):
    settings = ConversationSettings(
        most=2, least=1, summary=90, patience=timedelta(milliseconds=20)
    )
    conversation = Conversations(client, summarise=summarise, settings=settings).of("acme", "1")
    await conversation.append(
        *said("My card is lost. It was red.", "I was in Rome. Then in Oslo.", "Help!")
    )
    summary = (await conversation.recall()).summary
    assert summary is not None
    assert summary.text == "user: My card is lost.\nuser: I was in Rome."
    assert (summary.made, summary.turns) == (Made.EXTRACTED, 2)
    await conversation.append(*said("x" * 80, "y"))
    summary = (await conversation.recall()).summary
    assert summary is not None
    assert summary.text == f"user: {'x' * 80}"
    assert summary.turns == 4


async def test_a_summary_of_an_extract_says_it_is_one(client: redis.asyncio.Redis):
    await Conversations(client, settings=FEW).of("acme", "1").append(*said(*"abcde"))

    async def summarise(before: str, turns: Sequence[Turn]) -> str:
        return f"{before}|{len(turns)}"

    written = Conversations(client, summarise=summarise, settings=FEW).of("acme", "1")
    await written.append(*said(*"fgh"))
    summary = (await written.recall()).summary
    assert summary is not None
    assert summary.made is Made.EXTRACTED
    assert summary.text.startswith("user: a")


async def test_many_who_append_at_once_lose_nothing(client: redis.asyncio.Redis):
    settings = ConversationSettings(most=10, least=5, summary=100_000)
    conversations = Conversations(client, settings=settings)
    await asyncio.gather(
        *(conversations.of("acme", "1").append(*said(f"turn-{number}")) for number in range(60))
    )
    recalled = await conversations.of("acme", "1").recall()
    assert recalled.summary is not None
    assert recalled.summary.turns + len(recalled.turns) == 60
    held = recalled.summary.text.splitlines() + [f"user: {turn.text}" for turn in recalled.turns]
    assert sorted(held) == sorted(f"user: turn-{number}" for number in range(60))


async def test_a_long_turn_is_cut_and_says_so(client: redis.asyncio.Redis):
    conversation = Conversations(client, settings=ConversationSettings(longest=5)).of("acme", "1")
    await conversation.append(*said("123456"))
    turn = (await conversation.recall()).turns[0]
    assert (turn.text, turn.is_cut) == ("12345", True)


async def test_each_tenant_has_its_own_and_all_of_it_can_be_forgotten(client: redis.asyncio.Redis):
    conversations = Conversations(client, settings=FEW)
    odd = [("a:b", "c"), ("a", "b:c"), ("", "a:b:c"), ("a}", "c"), ("a", "c}")]
    for tenant, id_ in odd:
        await conversations.of(tenant, id_).append(*said(*"abcde", f"{tenant} {id_}"))
    for tenant, id_ in odd:
        recalled = await conversations.of(tenant, id_).recall()
        assert recalled.turns[-1].text == f"{tenant} {id_}"
        await conversations.of(tenant, id_).forget()
    assert not await client.keys("*")


async def test_it_lives_for_a_while_after_the_last_turn(client: redis.asyncio.Redis):
    conversation = Conversations(
        client, settings=ConversationSettings(most=2, least=1, life=timedelta(hours=1))
    ).of("acme", "1")
    await conversation.append(*said(*"abc"))
    keys = await client.keys("*")
    assert len(keys) == 2
    assert all([3590 <= await client.ttl(key) <= 3600 for key in keys])


async def test_redis_is_away():
    async with embedded.redis_client("redis://127.0.0.1:1") as nowhere:
        with pytest.raises(MemoryUnavailable):
            await Conversations(nowhere).of("acme", "1").recall()
        with pytest.raises(MemoryUnavailable):
            await WorkingMemory(nowhere).of("acme", "1").get("a")


async def test_notes_are_kept_by_name_and_the_oldest_go_first(client: redis.asyncio.Redis):
    notes = WorkingMemory(client, settings=WorkingSettings(most=3)).of("acme", "run-1")
    for name in ("a", "b", "c"):
        await notes.put(name, {"name": name})
    await notes.put("a", [1, None, "ü"])
    await notes.put("d", 4)
    assert await notes.all() == {"c": {"name": "c"}, "a": [1, None, "ü"], "d": 4}
    assert await notes.get("b", "none") == "none"
    await notes.drop("c")
    await notes.put("e", 5)
    assert set(await notes.all()) == {"a", "d", "e"}
    assert not await WorkingMemory(client).of("other", "run-1").all()
    assert all([0 < await client.ttl(key) <= 86_400 for key in await client.keys("*")])
    await notes.forget()
    assert not await client.keys("*")


async def test_notes_that_cannot_be_kept_are_refused(client: redis.asyncio.Redis):
    notes = WorkingMemory(client, settings=WorkingSettings(longest=10)).of("acme", "run-1")
    for name, value in (("", 1), ("n" * 201, 1), ("n", object()), ("n", "x" * 10)):
        with pytest.raises(rpc.InvalidArgument):
            await notes.put(name, value)
