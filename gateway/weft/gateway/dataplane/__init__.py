"""How the gateway calls agents: gRPC over HTTP/2 on asyncio transports.

A unary call by grpc.aio costs 285 to 345 us of CPU, since each event crosses from its threads to the loop; by this
client it costs a third. It is for calls in bytes to agents of the mesh, and for nothing else: everything else
speaks through `weft.rpc.Channel`.

hpack        header blocks as octets (RFC 7541)
headers      what gRPC says in them (PROTOCOL-HTTP2.md)
frames       frames as octets (RFC 9113)
inbox        messages out of DATA frames
call         one call: its messages both ways, and how it ended
connection   one connection, the calls on it and their windows
tally        what became of the calls at one address
endpoint     one address of an agent: connects, and again when the connection is lost
traffic      how calls are spread, as operators say
choosers     ways to choose an address
outliers     addresses that are left alone for a time, since their calls fail
balancer     all addresses of an agent, and which takes the next call
drill        calls that fail or are held up on purpose
mesh         all agents; deadline, metadata and trace of each call
"""

from weft.gateway.dataplane.call import Call
from weft.gateway.dataplane.endpoint import Security
from weft.gateway.dataplane.errors import CallFailed
from weft.gateway.dataplane.mesh import Mesh
from weft.gateway.dataplane.traffic import Traffic

__all__ = ["Call", "CallFailed", "Mesh", "Security", "Traffic"]
