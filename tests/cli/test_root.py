from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta

import click
import pytest

from weft import config
from weft.cli import identities
from weft.cli.app import root
from weft.rpc.signing import Signer
from weft.v1.identity_pb2 import Identity


def commands() -> Iterator[tuple[str, click.Command]]:
    with click.Context(root) as context:
        for name in root.list_commands(context):
            command = root.get_command(context, name)
            assert command is not None
            yield name, command
            if isinstance(command, click.Group):
                yield from ((f"{name} {sub}", found) for sub, found in command.commands.items())


def test_help_is_fast_and_imports_no_part(tools):
    probe = (
        "import sys, weft.cli.app as app\n"
        "try: app.main(['--help'])\n"
        "except SystemExit: print(sorted(m for m in sys.modules if m in ('grpc', 'asyncpg', 'rich')))"
    )
    began = time.perf_counter()
    done = subprocess.run(
        (tools.command[0], "-c", probe), capture_output=True, text=True, check=True
    )
    # A quarter of a second on its own; this machine runs other tests too.
    assert time.perf_counter() - began < 2
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_every_command_explains_itself(name: str, command: click.Command):
    assert command.help
    assert command.epilog is not None
    assert re.search(rf"^  weft {name.split(maxsplit=1)[0]}", command.epilog, re.MULTILINE)


@pytest.mark.parametrize("name", ["agents", "tickets", "keys", "call", "up", "agents serve"])
def test_help_ends_well(nowhere, name: str):
    told = nowhere(*name.split(), "--help")
    assert told.code == 0
    assert f"Usage: weft {name}" in told.out
    assert "Example" in told.out


def test_version(nowhere):
    assert re.fullmatch(r"weft \d+\.\d+\.\d+\S*\n", nowhere("--version").out)


def test_a_mistyped_command_is_wrong_usage_and_hints(nowhere):
    told = nowhere("agnts")
    assert told.code == 2
    assert "Did you mean 'agents'?" in told.err


def test_a_setting_that_cannot_be_read_is_named(nowhere):
    nowhere.monkeypatch.setenv("WEFT_TRACE_SAMPLE", "often")
    told = nowhere("agents")
    assert told.code == 2
    assert "WEFT_TRACE_SAMPLE" in told.err


TOKENS = {
    "GATEWAY_JWT_ISSUER": "https://idp",
    "GATEWAY_JWT_AUDIENCE": "weft",
    "GATEWAY_JWT_KEYS": "https://idp/keys",
}


@pytest.mark.parametrize(
    "arguments",
    [
        ("agents",),
        ("resolve", "echo"),
        ("find", "echo"),
        ("call", "echo.Say", "{}"),
        ("trace",),
        ("tickets",),
        ("ask", "Where is my card?"),
    ],
)
def test_without_a_mesh_every_command_says_how_to_start_one(nowhere, arguments: tuple[str, ...]):
    told = nowhere(*arguments)
    assert told.code == 1
    assert told.out == ""
    assert "weft up" in told.err
    assert "Traceback" not in told.err


def test_without_a_mesh_status_says_so_and_fails(nowhere):
    told = nowhere("status")
    assert told.code == 1
    assert re.search(r"^registry +down", told.out, re.MULTILINE)
    assert re.search(r"^postgres +down", told.out, re.MULTILINE)


@pytest.mark.parametrize("part", ["registry", "gateway"])
def test_a_part_alone_asks_for_its_database(nowhere, part: str):
    told = nowhere(part)
    assert told.code == 2
    assert "WEFT_DATABASE_URL" in told.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("agents", "serve", "nothing"), "neither a fleet"),
        (("agents", "serve", "no_such_module:Agent"), "no_such_module"),
        (("agents", "serve", "weft.agents.echo:Missing"), "Missing"),
        (("agents", "serve", "support"), "WEFT_DATABASE_URL"),
        (("agents", "serve", "support", "--only", "support-triag"), "'support-triage'"),
        (("agents", "serve", "weft.agents.echo:Echo", "--only", "echo"), "--only"),
        (("call", "echo"), "AGENT.METHOD"),
        (("call", "echo.Say", "{}", "--timeout", "0"), "--timeout"),
        (("call", "echo.Say", "@/no/such/file"), "/no/such/file"),
        (("up", "--replicas", "support-triage"), "AGENT=N"),
        (("up", "--replicas", "support-triage=0"), "AGENT=N"),
        (("up", "--replicas", "support-triag=2"), "'support-triage'"),
    ],
)
def test_wrong_usage_is_told_before_anything_starts(nowhere, arguments: tuple[str, ...], says: str):
    told = nowhere(*arguments)
    assert told.code == 2
    assert says in told.err


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"GATEWAY_AUTH": "jwt"}, "no issuer is named"),
        ({"GATEWAY_JWT_ISSUER": "https://idp"}, "an audience"),
        ({**TOKENS, "GATEWAY_JWT_KEYS": "http://10.0.0.1/keys"}, "https"),
        ({**TOKENS, "GATEWAY_JWT_SUBJECT": "key:{sub}"}, "user:{sub}"),
        ({**TOKENS, "GATEWAY_JWT_ROLE_SCOPES": "admin"}, "ROLE=SCOPE"),
        ({"IDENTITY_KEY": "/no/such/file"}, "/no/such/file"),
    ],
)
def test_a_gateway_that_could_know_nobody_does_not_start(nowhere, settings, says):
    nowhere.monkeypatch.setenv("WEFT_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    for name, value in settings.items():
        nowhere.monkeypatch.setenv(f"WEFT_{name}", value)
    told = nowhere("gateway")
    assert told.code == 2
    assert says in told.err


def test_the_key_of_the_gateway_is_made_once_and_its_public_half_shown(nowhere, tmp_path):
    shown = nowhere("keys", "identity").out
    assert nowhere("keys", "identity").out == shown
    assert Signer.load(tmp_path / "data" / "identity.pem").public == shown.strip()
    nowhere.monkeypatch.setenv("WEFT_IDENTITY_KEY", str(tmp_path / "other.pem"))
    assert nowhere("keys", "identity").out != shown


def test_only_what_the_mesh_signed_is_signed_anew(tmp_path):
    settings = config.Settings(data=tmp_path)
    old = Signer.made(tmp_path / "identity.pem", lifetime=timedelta(days=-1))
    ann = Identity(subject="user:ann")
    renew = identities.renewing(settings)
    assert renew(old.sign(ann)).expire_time.seconds > time.time()
    forged = Signer.made(tmp_path / "other.pem").sign(ann)
    for not_ours in (ann, forged):
        assert renew(not_ours) == not_ours
    elsewhere = config.Settings(data=tmp_path, registry="10.0.0.1:7070")
    assert identities.renewing(elsewhere)(old.sign(ann)) == old.sign(ann)
    assert identities.operator(elsewhere) is None
    assert identities.operator(settings).signature


def test_weights_that_are_others_are_refused_wherever_they_are_to_go(nowhere, tmp_path):
    (tmp_path / "model.safetensors").write_text("other")
    (tmp_path / "tokenizer.json").write_text("other")
    told = nowhere("knowledge", "weights", f"{tmp_path}", "--to", f"{tmp_path / 'there'}")
    assert (told.code, "SHA-256" in told.err) == (1, True)
    assert not (tmp_path / "there").exists()


def test_agents_that_could_believe_nobody_do_not_start(nowhere):
    nowhere.monkeypatch.setenv("WEFT_IDENTITY_TRUST", "nonsense")
    told = nowhere("agents", "serve", "weft.agents.echo:Echo")
    assert told.code == 2
    assert "identity_trust" in told.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(nowhere, shell: str):
    told = nowhere("completion", shell)
    assert told.code == 0
    assert f"_WEFT_COMPLETE={shell}_complete" in told.out


def test_the_bootstrap_names_the_registry_and_what_node_js_asks_for(nowhere):
    told = json.loads(nowhere("xds-bootstrap", "--registry", "10.0.0.7:7070", "--node", "me").out)
    (server,) = told["xds_servers"]
    assert server["server_uri"] == "10.0.0.7:7070"
    assert told["node"] == {"id": "me", "locality": {}}
