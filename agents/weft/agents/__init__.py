"""The runtime every agent is built on.

class Greeter(greeter_pb2_grpc.GreeterServiceServicer):
    async def Greet(self, request, context): ...

weft.agents.serve(Greeter())
"""

from weft.agents.contract import Contract, ContractError, contract_of
from weft.agents.host import Host
from weft.agents.mesh import Mesh
from weft.agents.serving import serve
from weft.rpc import Call, Deadline, current_call

__all__ = [
    "Call",
    "Contract",
    "ContractError",
    "Deadline",
    "Host",
    "Mesh",
    "contract_of",
    "current_call",
    "serve",
]
