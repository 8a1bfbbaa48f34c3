"""HTTP and JSON to gRPC requests and back, with no network in it: google.api.http in full.

catalog = Catalog(contracts)
match = catalog.router.match("GET", "/v1/support/articles/card-arrival")
request = match.target.binding.request(match.values, query, body)
"""

from weft.gateway.transcoding.catalog import Catalog, Contract, Endpoint, Method, Problem
from weft.gateway.transcoding.json_codec import JsonOptions, native_available
from weft.gateway.transcoding.router import MethodNotAllowed

__all__ = [
    "Catalog",
    "Contract",
    "Endpoint",
    "JsonOptions",
    "Method",
    "MethodNotAllowed",
    "Problem",
    "native_available",
]
