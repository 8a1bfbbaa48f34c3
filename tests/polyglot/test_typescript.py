"""A producer and a consumer in TypeScript, made from the .proto files alone."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path

import google.rpc
import grpc_tools
import pytest
import pytest_asyncio

from weft import rpc
from weft.broker import Broker
from weft.v1 import broker_pb2, broker_pb2_grpc

HERE = Path(__file__).parent / "typescript"
PROTO = HERE.parents[2] / "proto"
COUNT = 30


@pytest.fixture(scope="module")
def programs() -> Path:
    """The folder of the compiled programs."""
    npm = shutil.which("npm")
    assert npm, "npm is missing: install Node.js 20 or newer"
    if not (HERE / "node_modules/.package-lock.json").exists():
        run(npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts")
    googleapis = Path(next(iter(google.rpc.__path__))).parents[1]
    (HERE / "gen").mkdir(exist_ok=True)
    run(
        *(sys.executable, "-m", "grpc_tools.protoc"),
        *(f"-I{PROTO}", f"-I{googleapis}", f"-I{resources.files(grpc_tools) / '_proto'}"),
        f"--plugin=protoc-gen-ts_proto={HERE / 'node_modules/.bin/protoc-gen-ts_proto'}",
        f"--ts_proto_out={HERE / 'gen'}",
        "--ts_proto_opt=outputServices=grpc-js,esModuleInterop=true,forceLong=number,env=node",
        *("weft/v1/broker.proto", "weft/echo/v1/echo.proto"),
    )
    run(str(HERE / "node_modules/.bin/tsc"), "--outDir", "out")
    return HERE / "out"


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest_asyncio.fixture
async def broker(redis_url: str, database_url: str) -> AsyncIterator[Broker]:
    async with Broker(
        redis_url=redis_url, database_url=database_url, address="127.0.0.1:0"
    ) as found:
        yield found


async def node(program: Path, *arguments: str) -> object:
    process = await asyncio.create_subprocess_exec(
        "node",
        str(program),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return json.loads(out)


@pytest.mark.timeout(180)  # the first time, npm fetches what the programs need
async def test_a_producer_and_a_consumer_in_typescript(programs: Path, broker: Broker) -> None:
    async with rpc.Channel(broker.address) as channel:
        await broker_pb2_grpc.BrokerServiceStub(channel).SetQueue(
            broker_pb2.SetQueueRequest(queue="polyglot")
        )
    async with asyncio.TaskGroup() as both:
        consuming = both.create_task(
            node(programs / "consumer.js", broker.address, "polyglot", str(COUNT))
        )
        producing = both.create_task(
            node(programs / "producer.js", broker.address, "polyglot", str(COUNT))
        )
    assert producing.result() == {"accepted": COUNT + 1, "duplicates": 1, "refusals": []}
    assert consuming.result() == {
        f"key-{key}": [f"hello {number}" for number in range(key, COUNT, 3)] for key in range(3)
    }
