"""What the image is, as far as its definition tells; `tools/image.py` runs its steps and what comes of them (`make image`)."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from tests.deploy.processes import finished

from weft import rpc

ROOT = Path(__file__).parents[2]


def _tool():
    spec = importlib.util.spec_from_file_location("image_tool", ROOT / "tools/image.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


TOOL = _tool()
STAGES = TOOL.stages(TOOL.CONTAINERFILE.read_text())


def test_every_base_is_pinned_by_its_version():
    for stage in STAGES:
        assert re.fullmatch(r"docker\.io/library/python:\d+\.\d+-slim-\w+", stage.base)


def test_it_runs_as_nobody_of_the_machine_and_tells_how_it_is():
    image = STAGES[-1]
    uid, _, gid = image.user.partition(":")
    assert int(uid) == int(gid) >= 10_000
    assert image.health == ["weft", "health"]
    assert image.entrypoint == ["weft"]


def test_compilers_and_sources_stay_behind():
    copied = [rest for word, rest in STAGES[-1].steps if word == "COPY"]
    assert copied == ["--from=build /opt/weft /opt/weft"]


def test_every_portion_is_in_the_context_and_the_image():
    text = (ROOT / "pyproject.toml").read_text()
    portions = set(re.findall(r'"(\w+)/weft"', text))
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} >= portions
    copied = {rest.split()[0] for word, rest in STAGES[0].steps if word == "COPY"}
    assert copied >= portions


def test_what_is_not_understood_is_refused():
    with pytest.raises(ValueError, match="ADD is not understood"):
        TOOL.stages("FROM x\nADD a b")


@pytest.mark.parametrize(
    ("service", "code", "state"), [("", 0, "SERVING"), ("no.Such", 1, "NOT_FOUND")]
)
async def test_a_server_is_asked_how_it_is(service: str, code: int, state: str):
    async with rpc.Server("127.0.0.1:0") as server:
        told = await finished("health", "--service", service, WEFT_HEALTH=server.address)
        assert (told.code, told.out.strip()) == (code, state), told.err


async def test_a_server_that_is_away_is_not_healthy():
    told = await finished("health", "127.0.0.1:1", "--timeout", "2")
    assert (told.code, told.out.strip()) == (1, "UNAVAILABLE")
