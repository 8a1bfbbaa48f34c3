"""The image without a container engine: runs the Containerfile's steps in folders, and programs in what comes of them.

    tools/image.py build FOLDER     each stage is a folder below it; the base is Debian's, by debootstrap
    tools/image.py check FOLDER     starts every part as the image would: its user, a root that is read-only, no capability

It needs root on Linux, debootstrap, unshare and setpriv. A base of another maker stands in for the one that is named, so it
proves the steps, not the base.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONTAINERFILE = ROOT / "deploy/image/Containerfile"
_SUITE = "bookworm"
_BASE = "docker.io/library/python:3.11-slim-bookworm"
_PACKAGES = "python3,python3-venv,ca-certificates"
_CHROOT = shutil.which("chroot") or "/usr/sbin/chroot"
_KNOWN = frozenset(
    [
        "FROM",
        "ARG",
        "WORKDIR",
        "COPY",
        "RUN",
        "LABEL",
        "ENV",
        "USER",
        "EXPOSE",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "ENTRYPOINT",
        "CMD",
    ]
)


@dataclass
class Stage:
    """A stage of the build, and what the image of the last one says."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    folder: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)


def stages(text: str) -> list[Stage]:
    """Reads a Containerfile. Raises ValueError for what is not understood here."""
    bare = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found: list[Stage] = []
    for line in filter(None, map(str.strip, bare.replace("\\\n", " ").splitlines())):
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        if word not in _KNOWN:
            raise ValueError(f"{word} is not understood")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(name=name or f"{len(found)}", base=base))
            continue
        _told(found[-1], word, rest)
        found[-1].steps.append((word, rest))
    return found


def _told(stage: Stage, word: str, rest: str) -> None:
    if word == "ENV":
        stage.environment |= dict(each.split("=", 1) for each in shlex.split(rest))
    elif word == "USER":
        stage.user = rest
    elif word == "ENTRYPOINT":
        stage.entrypoint = json.loads(rest)
    elif word == "HEALTHCHECK":
        stage.health = json.loads(rest.partition(" CMD ")[2])
    elif word == "WORKDIR":
        stage.folder = rest


def build(folder: Path, base: Path | None) -> None:
    """Makes every stage. `base`: a folder from debootstrap; None: make one."""
    folder.mkdir(parents=True, exist_ok=True)
    found = stages(CONTAINERFILE.read_text())
    if base is None:
        base = folder / "base"
        command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", _SUITE, str(base)]
        _said("the base by debootstrap")
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for stage in found:
        if stage.base != _BASE:
            raise ValueError(f"{stage.base} has no stand-in; it is made for {_BASE}")
        root = folder / stage.name
        subprocess.run(["rm", "-rf", str(root)], check=True)
        subprocess.run(["cp", "-a", str(base), str(root)], check=True)
        _build(folder, root, stage)


def _build(folder: Path, root: Path, stage: Stage) -> None:
    environment: dict[str, str] = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
    where = "/"
    for word, rest in stage.steps:
        if word in {"COPY", "RUN"}:
            _said(f"{stage.name}: {word} {' '.join(rest.split())[:110]}")
        if word == "ARG":
            name, _, default = rest.partition("=")
            environment[name] = os.environ.get(name, default)
        elif word == "ENV":
            environment |= dict(each.split("=", 1) for each in shlex.split(rest))
        elif word == "WORKDIR":
            where = rest
            (root / where.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            _copy(folder, root, where, shlex.split(rest))
        elif word == "RUN":
            _run(root, where, rest, environment)


def _copy(folder: Path, root: Path, where: str, words: list[str]) -> None:
    source = ROOT
    if words[0].startswith("--from="):
        source = folder / words.pop(0).removeprefix("--from=")
    *names, target = words
    to = root / str(Path(where) / target).lstrip("/")
    for name in names:
        origin = source / name.lstrip("/")
        into = to / origin.name if target.endswith("/") else to
        into.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(origin, into, symlinks=True, dirs_exist_ok=True, ignore=ignored)
        else:
            shutil.copy2(origin, into)


def _run(root: Path, where: str, script: str, environment: dict[str, str]) -> None:
    """A step, as root, with this machine's network and its settings of pip."""
    own = {name: value for name, value in os.environ.items() if _of_network(name)}
    mounts = [f"mount -t proc proc {root}/proc", f"mount --bind /dev {root}/dev"]
    places = {place for place in own.values() if place.startswith("/")}
    for place in filter(os.path.exists, ["/etc/resolv.conf", "/etc/hosts", *sorted(places)]):
        there = root / place.lstrip("/")
        if Path(place).is_dir():
            there.mkdir(parents=True, exist_ok=True)
        elif not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            there.touch()
        mounts.append(f"mount --bind {place} {there}")
    step = shlex.quote(f"cd {where}; {script}")
    inner = " && ".join([*mounts, f"exec chroot {root} /bin/sh -ec {step}"])
    subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-ec", inner],
        env={**own, **environment},
        check=True,
    )


def _of_network(name: str) -> bool:
    return name.startswith(("PIP_", "SSL_")) or name.lower().endswith(("_proxy", "_ca_bundle"))


class Container:
    """A program in the image: as its user, with no capability, on a root that is read-only; network of this machine."""

    def __init__(self, root: Path, image: Stage, log: Path, *arguments: str, **more: str) -> None:
        environment = {**image.environment, **more}
        uid, _, gid = image.user.partition(":")
        command = shlex.join([*image.entrypoint, *arguments])
        inside = f"cd {image.folder} && exec {command}"
        inner = " && ".join(
            (
                f"mount --bind {root} {root}",
                f"mount -o remount,ro,bind,nosuid,nodev {root}",
                f"mount -t proc -o ro proc {root}/proc",
                f"mount -t tmpfs -o nosuid,nodev,noexec,mode=1777 tmpfs {root}/tmp",  # noqa: S108 the image's
                f"mount --bind /dev {root}/dev",
                f"exec {_CHROOT} {root} /usr/bin/setpriv --reuid={uid} --regid={gid} --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all /bin/sh -c {shlex.quote(inside)}",
            )
        )
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-ec", inner],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.log = log

    def wait(self, seconds: float = 60) -> int:
        """Its exit status."""
        return self._process.wait(seconds)

    @property
    def pid(self) -> int:
        """The program's, the first process of its namespace."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return int(children.read_text().split()[0])

    @property
    def running(self) -> bool:
        """Whether it is."""
        return self._process.poll() is None

    def stop(self) -> int:
        """Asks it to end, as an engine does; its exit status."""
        subprocess.run(["kill", "-TERM", str(self.pid)], check=True)
        return self.wait(30)

    def kill(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()


def check(folder: Path) -> None:
    """Migrates, starts registry, broker, gateway and agents in the image, calls through them, stops them."""
    image = stages(CONTAINERFILE.read_text())[-1]
    root = folder / image.name
    size = subprocess.run(
        ["du", "-sm", str(root / "opt/weft")], check=True, capture_output=True, text=True
    )
    _said(f"/opt/weft has {size.stdout.split()[0]} MiB")
    with tempfile.TemporaryDirectory(prefix="weft-image-") as logs, _servers(Path(logs)) as servers:
        ports = [_free_port() for _ in range(6)]
        registry, broker, http, grpc, agents, metrics = (f"127.0.0.1:{port}" for port in ports)
        settings = {
            **servers,
            "WEFT_REGISTRY": registry,
            "WEFT_REGISTRY_LISTEN": registry,
            "WEFT_REGISTRY_METRICS": metrics,
            "WEFT_BROKER": broker,
            "WEFT_BROKER_LISTEN": broker,
            "WEFT_BROKER_METRICS": "127.0.0.1:0",
            "WEFT_GATEWAY_LISTEN": http,
            "WEFT_GATEWAY_GRPC_LISTEN": grpc,
            "WEFT_GATEWAY_METRICS": "127.0.0.1:0",
            "WEFT_AGENTS_LISTEN": agents,
            "WEFT_MIGRATE": "off",
        }

        def start(*arguments: str, **more: str) -> Container:
            log = Path(logs) / f"{arguments[0]}.log"
            return Container(root, image, log, *arguments, **settings, **more)

        started: list[Container] = []
        try:
            migrating = start("migrate")
            _expect(migrating.wait() == 0, "weft migrate", migrating)
            for address, *arguments in (
                (registry, "registry"),
                (broker, "broker"),
                (grpc, "gateway"),
                (agents, "agents", "serve", "weft.agents.echo:Echo"),
            ):
                part = start(*arguments)
                started.append(part)
                _until(lambda to=address: _healthy(start, image, to), arguments[0], part)
                _confined(part)
            calling = start("call", "echo.Say", '{"text": "from the image"}')
            _expect(
                calling.wait() == 0 and "from the image" in calling.log.read_text(),
                "a call",
                calling,
            )
            for part in reversed(started):
                _expect(part.stop() == 0, "a part that is asked to end", part)
        finally:
            for part in started:
                part.kill()
    _said("every part runs as the image's user, on a root that is read-only, and is healthy")


def _healthy(start: object, image: Stage, address: str) -> bool:
    assert callable(start)
    assert image.health[0] == image.entrypoint[0]
    asked = start(*image.health[1:], WEFT_HEALTH=address)
    return bool(asked.wait() == 0)


def _confined(part: Container) -> None:
    status = Path(f"/proc/{part.pid}/status").read_text()
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    _expect(facts["Uid"].split() == ["65532"] * 4, "the user", part)
    _expect(int(facts["CapBnd"], 16) == int(facts["CapEff"], 16) == 0, "no capability", part)
    _expect(facts["NoNewPrivs"] == "1", "no new privileges", part)
    mounts = Path(f"/proc/{part.pid}/mountinfo").read_text().splitlines()
    root = next(line.split() for line in mounts if line.split()[4] == "/")
    _expect("ro" in root[5].split(","), "a root that is read-only", part)


@contextlib.contextmanager
def _servers(folder: Path) -> Iterator[dict[str, str]]:
    """A PostgreSQL and a Redis on ports of the loopback, of this machine's programs."""
    code = (
        "import asyncio, sys; from pathlib import Path; from weft import embedded\n"
        "async def main():\n"
        "  async with embedded.launch(Path(sys.argv[1])) as found:\n"
        "    print(found.redis_url, found.database_url, flush=True)\n"
        "    await asyncio.to_thread(sys.stdin.read)\n"
        "asyncio.run(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder / "data")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        redis, postgres = process.stdout.readline().split()
        # Unix sockets are not seen from another root; TCP is.
        with _forwarded(redis.removeprefix("unix://").partition("?")[0]) as redis_port:
            where = re.search(r"host=([^&]+)&port=(\d+)", postgres)
            assert where is not None
            path = where[1].replace("%2F", "/")
            with _forwarded(f"{path}/.s.PGSQL.{where[2]}") as postgres_port:
                yield {
                    "WEFT_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
                    "WEFT_DATABASE_URL": f"postgresql://postgres@127.0.0.1:{postgres_port}/postgres",
                }
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


@contextlib.contextmanager
def _forwarded(path: str) -> Iterator[int]:
    """A port of the loopback that leads to a unix socket."""
    port = _free_port()
    code = (
        "import asyncio, sys\n"
        "async def pump(reader, writer):\n"
        "  try:\n"
        "    while data := await reader.read(65536):\n"
        "      writer.write(data); await writer.drain()\n"
        "  except OSError: pass\n"
        "  finally: writer.close()\n"
        "async def one(reader, writer):\n"
        "  r, w = await asyncio.open_unix_connection(sys.argv[1])\n"
        "  await asyncio.gather(pump(reader, w), pump(r, writer))\n"
        "async def main():\n"
        "  server = await asyncio.start_server(one, '127.0.0.1', int(sys.argv[2]))\n"
        "  print('ready', flush=True)\n"
        "  await server.serve_forever()\n"
        "asyncio.run(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, path, str(port)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield port
    finally:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _until(holds: object, what: str, part: Container) -> None:
    assert callable(holds)
    last = time.monotonic() + 60
    while not holds():
        _expect(part.running and time.monotonic() < last, f"{what} that is healthy", part)
    _said(f"{what} is healthy")


def _expect(holds: bool, what: str, part: Container) -> None:  # noqa: FBT001 an assertion
    if not holds:
        raise SystemExit(f"expected {what}; it said:\n{part.log.read_text()}")


def _said(text: str) -> None:
    print(f"image: {text}", flush=True)


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["build", "check"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", type=Path, help="a root folder that debootstrap made")
    given = parser.parse_args()
    if given.what == "build":
        build(given.folder.resolve(), given.base)
    else:
        check(given.folder.resolve())


if __name__ == "__main__":
    main()
