"""Values that cannot be used: said in a line that names the setting, and never in a traceback."""

from __future__ import annotations

import hashlib
import json

import click
import pytest

from weft.cli import spreading
from weft.v1.traffic_pb2 import Traffic

NO_DATABASE = [
    "nonsense",
    "postgresql://weft:secr3t@[::1",
    "postgresql://weft:sec/r3t@db/weft",
    "mysql://weft:secr3t@db/weft",
]
USERS = [
    ("doctor",),
    ("status",),
    ("migrate", "--check"),
    ("keys", "list"),
    ("backup", "--to", "backup", "--only", "postgres"),
    ("registry",),
]


@pytest.mark.parametrize("command", USERS, ids=lambda command: command[0])
@pytest.mark.parametrize("url", NO_DATABASE)
def test_a_url_that_is_none_of_a_database(nowhere, command, url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEFT_DATABASE_URL", url)
    told = nowhere(*command)
    assert told.code == 2
    assert told.err.startswith("Error: database_url (WEFT_DATABASE_URL)")
    assert "r3t" not in told.err
    assert len(told.err.splitlines()) == 1


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "two words:80", "[::1:80", "nonsense"])
def test_the_doctor_goes_on_where_an_address_is_none(nowhere, monkeypatch, address):
    monkeypatch.setenv("WEFT_REGISTRY_METRICS", address)
    found = {each["check"]: each for each in json.loads(nowhere("doctor", "--json").out)}
    assert found["metrics of registry"]["state"] == "warn"
    assert found["gateway"]["state"] == "fail"


def test_a_port_that_is_none(nowhere):
    told = nowhere("alerts", "--to", "http://127.0.0.1:1/", "--listen", "127.0.0.1:99999")
    assert (told.code, told.err) == (
        2,
        "Error: Cannot listen on 127.0.0.1:99999: stop what uses it, or choose another by --listen.\n",
    )


@pytest.mark.parametrize("address", ["", "nonsense", ":80", ":::", "[::1]", "a b:80", "h:123456"])
def test_an_address_that_is_none(nowhere, address):
    told = nowhere("health", address)
    assert (told.code, told.err.splitlines()[-1]) == (
        2,
        f"Error: {address!r} is no HOST:PORT, such as 127.0.0.1:7070.",
    )


@pytest.mark.parametrize("span", ["99999999999h", "9999999d", "99999999h", "1y", "-1s"])
def test_a_time_that_is_none(nowhere, span):
    told = nowhere("traffic", "fault", "echo", "--abort", "5", f"--for={span}")
    assert told.code == 2
    assert f"Error: {span!r} is " in told.err


@pytest.mark.parametrize("number", ["99999999999", "1" * 5_000, "-1", "1.5", "٣", "x"])
def test_a_number_that_is_none(nowhere, number):
    told = nowhere("agents", "set", "echo", f"concurrency={number}")
    assert told.code == 2
    assert "concurrency is a whole number" in told.err
    with pytest.raises(click.UsageError, match="retries is a whole number"):
        spreading.put(Traffic(), f"retries={number}")


def test_a_backup_whose_keys_are_elsewhere(nowhere, tmp_path):
    (tmp_path / "key.pem").write_bytes(b"key")
    file = {"name": "key.pem", "size": 3, "sha256": hashlib.sha256(b"key").hexdigest()}
    manifest = {
        "format": 1,
        "weft": "0",
        "begin_time": "",
        "end_time": "",
        "redis": None,
        "postgres": None,
        "secrets": ["key.pem"],
        "files": [file],
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    told = nowhere("restore", "--from", str(tmp_path), "--with-secrets")
    assert told.code == 1
    assert "manifest.json is damaged: it has 'key.pem' for a key" in told.err
