"""This process and its machine: what a part that is started here would find."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from weft.cli.doctor.model import Finding, fail, ok, warn

if TYPE_CHECKING:
    from weft.config import Settings

_FILES, _FEW_FILES = 4_096, 1_024
_GIB = 1024**3
_DISK, _NO_DISK = 2 * _GIB, _GIB // 5
_EXPIRES = timedelta(days=14)
# Which proxy gRPC takes: the first of these that is set.
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")


def look(settings: Settings, environ: Mapping[str, str]) -> list[Finding]:
    """All there is to see without asking anybody."""
    certificate = settings.gateway_tls_certificate
    return [
        files(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        disk(settings.data),
        *proxy([settings.registry, *settings.broker.split(",")], environ),
        *bootstrap(settings.registry, environ),
        *([expiry(Path(certificate))] if certificate else []),
    ]


def files(limit: int) -> Finding:
    """How many files a process may have open."""
    check, what = "open files", f"{limit} for each process"
    if limit == resource.RLIM_INFINITY or limit >= _FILES:
        return ok(check, what)
    why = "Each connection is an open file; the gateway takes fewer callers than it is set to."
    do = "Raise it: `ulimit -n 65536`, or LimitNOFILE=65536 in the unit of systemd."
    return (fail if limit < _FEW_FILES else warn)(check, what, why, do)


def disk(folder: Path) -> Finding:
    """How much room there is for the data of the embedded servers."""
    there = next(each for each in (folder, *folder.resolve().parents) if each.exists())
    free = shutil.disk_usage(there).free
    check, what = "disk", f"{free / _GIB:.1f} GiB free at {there}"
    if free >= _DISK:
        return ok(check, what)
    why = "A full disk stops Redis and PostgreSQL: nothing is accepted any more."
    do = "Make room, or move the folder: --data or WEFT_DATA."
    return (fail if free < _NO_DISK else warn)(check, what, why, do)


def proxy(addresses: Sequence[str], environ: Mapping[str, str]) -> Iterator[Finding]:
    """Whether gRPC goes through a proxy to what is near."""
    name = next((each for each in _PROXIES if environ.get(each)), "")
    if not name:
        yield ok("proxy", "none is set for gRPC")
        return
    exceptions = next((environ[each] for each in _EXCEPTIONS if environ.get(each)), "")
    hosts = {address.strip().rpartition(":")[0].strip("[]") for address in addresses if address}
    through = sorted(host for host in hosts if not _excepted(host, exceptions))
    if not through:
        yield ok("proxy", f"{name} is set, and no_proxy excepts the mesh")
        return
    yield fail(
        "proxy",
        f"{name} is set: gRPC goes through it to {', '.join(through)}",
        "A proxy for the web does not pass gRPC to this machine or network: calls fail with UNAVAILABLE.",
        f"Set no_proxy={','.join(through)}, or unset {name} for the parts of the mesh.",
    )


def _excepted(host: str, exceptions: str) -> bool:
    """As the gRPC core decides it: by the end of a name, or by a network."""
    for entry in filter(None, (each.strip() for each in exceptions.split(","))):
        if host.endswith(entry):
            return True
        try:
            if ip_address(host) in ip_network(entry, strict=False):
                return True
        except ValueError:
            continue
    return False


def bootstrap(registry: str, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Where gRPC clients that are started in this environment look for agents."""
    check = "xds bootstrap"
    file, given = environ.get("GRPC_XDS_BOOTSTRAP"), environ.get("GRPC_XDS_BOOTSTRAP_CONFIG")
    if not file and not given:
        yield ok(check, "none in this environment; parts of Weft bring their own")
        return
    why = "A gRPC client that is started here does not find agents by xds:///NAME."
    do = f"Let it name the registry: server_uri {registry!r} (docs/operating.md), or unset it."
    try:
        text = Path(file).read_text(encoding="utf-8") if file else given or ""
        servers = json.loads(text)["xds_servers"]
        named = [str(server["server_uri"]) for server in servers]
    except OSError as failed:
        yield fail(check, f"GRPC_XDS_BOOTSTRAP: {file}: {failed.strerror}", why, do)
    except (ValueError, KeyError, TypeError):
        yield fail(
            check,
            f"{'GRPC_XDS_BOOTSTRAP' if file else 'GRPC_XDS_BOOTSTRAP_CONFIG'} is no bootstrap document",
            why,
            do,
        )
    else:
        if registry in {name.removeprefix("dns:///") for name in named}:
            yield ok(check, f"names the registry {registry}")
        else:
            yield warn(check, f"names {', '.join(named)}, and the registry is {registry}", why, do)


def expiry(certificate: Path) -> Finding:
    """How long the gateway's certificate lasts."""
    from cryptography import x509

    check = "certificate"
    why = "Callers refuse a gateway whose certificate has ended."
    do = f"Put a new one into {certificate} and its key beside it: it is taken within five seconds."
    try:
        ends = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as failed:
        return fail(
            check, f"{certificate} cannot be read: {failed}", "The gateway does not start.", do
        )
    left = ends - datetime.now(UTC)
    what = f"{certificate} ends {ends:%Y-%m-%d}"
    if left > _EXPIRES:
        return ok(check, what)
    return (fail if left < timedelta(0) else warn)(check, what, why, do)
