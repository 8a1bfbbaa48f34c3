"""Scopes: what a skill asks for (weft.v1.SkillOptions.required_scopes), and who has it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from google.protobuf.descriptor import ServiceDescriptor

from weft.rpc.errors import PermissionDenied
from weft.rpc.methods import find
from weft.v1 import options_pb2


class ScopeMissing(PermissionDenied):
    """The caller lacks a scope that the skill needs; `metadata` names it."""

    reason = "SCOPE_MISSING"


def check(
    method: str, required: Sequence[str], granted: Collection[str], *, everything: bool = False
) -> None:
    """Lets a call pass whose caller has every scope its method needs.

    Args:
        method: gRPC path.
        required: what the method needs.
        granted: what the caller has.
        everything: whether the caller counts as having all scopes.

    Raises:
        ScopeMissing: one is missing.
    """
    if everything:
        return
    missing = [scope for scope in required if scope not in granted]
    if missing:
        name = method.lstrip("/")
        words = "scope" if len(missing) == 1 else "scopes"
        raise ScopeMissing(
            f"{name} needs the {words} {', '.join(missing)}, which the caller does not have.",
            metadata={"method": name, "missing_scopes": " ".join(missing)},
        )


def required_by(method: str, service: ServiceDescriptor | None = None) -> tuple[str, ...]:
    """Scopes that "/package.Service/Method" needs; none where this process does not have its contract."""
    descriptor = find(method, service)
    if descriptor is None:
        return ()
    return tuple(descriptor.GetOptions().Extensions[options_pb2.skill].required_scopes)
