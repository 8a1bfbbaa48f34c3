"""How any Weft process speaks gRPC: server, channel, deadline, identity, errors.

async with rpc.Server("127.0.0.1:0") as server: ...
async with rpc.Channel("xds:///support-triage") as channel: ...
"""

from weft.rpc.addresses import Addresses
from weft.rpc.bootstrap import BOOTSTRAP_VARIABLE, use_registry, xds_bootstrap
from weft.rpc.call import Call, current_call
from weft.rpc.channel import Channel
from weft.rpc.deadline import Deadline
from weft.rpc.errors import (
    DETAILS_KEY,
    Aborted,
    AlreadyExists,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    Error,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Unknown,
    error_from_call,
    error_from_status,
    status_proto,
)
from weft.rpc.live import AgentPaused, LiveSettings
from weft.rpc.load import LoadMeter
from weft.rpc.server import AddressInUseError, Server
from weft.rpc.status import CONNECT_CODE, HTTP_STATUS
from weft.rpc.tracing import span_receivers
from weft.rpc.utilization import Utilization

__all__ = [
    "BOOTSTRAP_VARIABLE",
    "CONNECT_CODE",
    "DETAILS_KEY",
    "HTTP_STATUS",
    "Aborted",
    "AddressInUseError",
    "Addresses",
    "AgentPaused",
    "AlreadyExists",
    "Call",
    "Cancelled",
    "Channel",
    "DataLoss",
    "Deadline",
    "DeadlineExceeded",
    "Error",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "LiveSettings",
    "LoadMeter",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "ResourceExhausted",
    "Server",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
    "Utilization",
    "current_call",
    "error_from_call",
    "error_from_status",
    "span_receivers",
    "status_proto",
    "use_registry",
    "xds_bootstrap",
]
