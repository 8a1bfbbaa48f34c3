from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests import secured
from tests.certificates import Certificates

from weft import config, mtls, rpc


def test_an_authority_is_made_shown_and_replaced(nowhere, tmp_path: Path):
    made = nowhere("certificates", "init", "--trust-domain", "shop.example", "--json").json
    assert made["trustDomain"] == "shop.example"
    assert made["roots"] == 1
    assert nowhere("certificates", "init", "--trust-domain", "shop.example", "--json").json == made
    other = nowhere("certificates", "init")
    assert other.code == 2
    assert "is of the trust domain shop.example, not weft.local" in other.err
    assert "spiffe://shop.example" in nowhere("certificates", "show").out
    assert nowhere("certificates", "rotate", "--json").json["roots"] == 2
    assert len(nowhere("certificates", "show", "--json").json) == 2
    assert "1 root " in nowhere("certificates", "rotate", "--finish").out


def test_certificates_are_issued_as_files_that_can_be_followed(nowhere, tmp_path: Path):
    nowhere("certificates", "init")
    out = str(tmp_path / "greeter")
    arguments = ("certificates", "issue", "--agent", "greeter", "--agent", "clerk", "--out", out)
    issued = nowhere(*arguments, "--name", "10.1.2.3", "--days", "2", "--json").json
    assert issued["id"] == "spiffe://weft.local/agent/clerk/greeter"
    settings = config.load(issued["settings"])
    means = config.membership(settings)
    certificate, key, ca = means.files
    credentials = mtls.Credentials(mtls.Files(certificate=certificate, key=key, ca=ca))
    assert credentials.who.agents == ("clerk", "greeter")
    assert 172_000 < credentials.seconds_left() <= 172_800
    shown = nowhere("certificates", "show", str(certificate), "--json").json
    assert shown[0]["names"] == ["10.1.2.3"]
    told = nowhere(*arguments)
    assert f"WEFT_MTLS_CERTIFICATE={certificate}" in told.out.splitlines()
    credentials.look()
    assert credentials.generation == 1
    assert 86_000 < credentials.seconds_left() <= 86_400


def test_parts_have_the_names_by_which_they_are_dialled(nowhere, tmp_path: Path):
    nowhere("certificates", "init")
    out = ("--out", str(tmp_path / "registry"))
    nowhere("certificates", "issue", "--part", "registry", "--name", "registry.example", *out)
    path = str(tmp_path / "registry/current/certificate.pem")
    (shown,) = nowhere("certificates", "show", path, "--json").json
    assert shown["id"] == "spiffe://weft.local/part/registry"
    assert shown["names"] == ["registry.weft.local", "registry.example"]


@pytest.mark.parametrize("arguments", [(), ("--agent", "a", "--client", "b")])
def test_a_certificate_is_for_somebody(nowhere, tmp_path: Path, arguments):
    nowhere("certificates", "init")
    told = nowhere("certificates", "issue", *arguments, "--out", str(tmp_path / "x"))
    assert told.code == 2
    assert "--agent, --part or --client" in told.err


def test_what_is_missing_is_told(nowhere, tmp_path: Path):
    told = nowhere("certificates", "issue", "--client", "ann", "--out", str(tmp_path / "x"))
    assert told.code == 2
    assert "weft certificates init" in told.err
    nowhere.monkeypatch.setenv("WEFT_MTLS", "on")
    assert "weft certificates init" in nowhere("agents").err
    nowhere.monkeypatch.setenv("WEFT_MTLS_KEY", "key.pem")
    assert "name all three" in nowhere("agents").err


def test_mtls_is_found_by_commands_on_the_same_machine_only(tmp_path: Path):
    def means(**further: str) -> config.Membership | None:
        return config.membership(config.load({"WEFT_DATA": str(tmp_path), **further}))

    assert means() is None
    config.mark(tmp_path, on=True)
    assert means() is not None
    assert means(WEFT_REGISTRY="localhost:7070") is not None
    assert means(WEFT_REGISTRY="10.0.0.5:7070") is None
    assert means(WEFT_MTLS="off") is None
    config.mark(tmp_path, on=False)
    assert means() is None
    assert means(WEFT_MTLS="on") is not None
    with pytest.raises(ValueError, match="all three"):
        means(WEFT_MTLS_CA="ca.pem")


def test_a_command_without_mtls_imports_nothing_of_it():
    told = subprocess.run(
        (
            sys.executable,
            "-c",
            "import sys, weft.cli.connect, weft.cli.brokers; print('weft.mtls' in sys.modules)",
        ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "False"


async def test_a_command_without_a_certificate_is_told_of_mtls(tools, tmp_path: Path):
    certificates = Certificates(tmp_path)
    async with rpc.Server(mtls=certificates.part("registry")) as server:
        command = await asyncio.create_subprocess_exec(
            *tools.command,
            "agents",
            env=tools.environment(tmp_path / "data", WEFT_REGISTRY=server.address),
            stderr=asyncio.subprocess.PIPE,
        )
        _, err = await command.communicate()
    assert command.returncode == 1
    assert "if that mesh has mTLS" in err.decode()


@pytest.mark.skipif(not secured.ON, reason="WEFT_TEST_MESH_TLS is not on")
def test_the_house_takes_no_call_without_certificates(weft, house):
    weft.monkeypatch.setenv("WEFT_MTLS", "off")
    told = weft("agents")
    assert told.code == 1
    assert "cannot be reached" in told.err


def test_clients_of_other_languages_are_told_of_files_that_stay(nowhere, tmp_path: Path):
    nowhere("certificates", "init")
    nowhere.monkeypatch.setenv("WEFT_MTLS", "on")
    told = nowhere("xds-bootstrap")
    assert told.code != 0
    assert "weft certificates issue --client" in told.err
    folder = tmp_path / "ann"
    issued = nowhere("certificates", "issue", "--client", "ann", "--out", str(folder), "--json")
    registries = ("--registry", "10.0.0.7:7070,10.0.0.8:7070")
    told = nowhere("xds-bootstrap", *registries, "--certificates", str(folder)).json
    (provider,) = told["certificate_providers"].values()
    assert provider["plugin_name"] == "file_watcher"
    settings = issued.json["settings"]
    assert provider["config"]["certificate_file"] == settings["WEFT_MTLS_CERTIFICATE"]
    servers = {one["server_uri"]: one["channel_creds"] for one in told["xds_servers"]}
    tls = [{"type": "tls", "config": provider["config"]}]
    assert servers == {"10.0.0.7:7070": tls, "10.0.0.8:7070": tls}
    for name, value in settings.items():
        nowhere.monkeypatch.setenv(name, value)
    by_settings = nowhere("xds-bootstrap").json
    assert by_settings["certificate_providers"] == told["certificate_providers"]


@pytest.mark.parametrize(
    ("server", "state"),
    [("agent", "SERVING"), ("plain", "SERVING"), ("stranger", "UNAVAILABLE")],
)
async def test_servers_of_the_mesh_are_asked_how_they_are(
    tools, tmp_path: Path, server: str, state: str
):
    certificates = Certificates(tmp_path)
    own = {
        "agent": certificates.agents("greeter"),
        "plain": None,
        "stranger": Certificates(tmp_path / "else").agents("greeter"),
    }[server]
    files = certificates.files("client/ann")
    async with rpc.Server(mtls=own) as serving:
        command = await asyncio.create_subprocess_exec(
            *tools.command,
            *("health", serving.address, "--json"),
            env=tools.environment(
                tmp_path / "data",
                WEFT_MTLS_CERTIFICATE=str(files.certificate),
                WEFT_MTLS_KEY=str(files.key),
                WEFT_MTLS_CA=str(files.ca),
            ),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await command.communicate()
    assert json.loads(out)["state"] == state
