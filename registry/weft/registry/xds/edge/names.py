"""Names of what edges are sent. No agent can have one: agents' names have no "@"."""

PREFIX = "@"
LISTENER = "@edge"
ROUTES = "@edge"
CLOSED = "@edge-closed"  # routes of edges that may only let callers to a gateway
GATEWAY = "@gateway"
GATEWAY_GRPC = "@gateway-grpc"
KEYS = "@token-keys"
CORS = "cors"
WEB = "grpc-web"
NOWHERE = "@nowhere"  # a cluster that does not exist
