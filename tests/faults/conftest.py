"""The servers of the broker's tests, for these too."""

from tests.broker.conftest import redis_program, redis_server, server_folder

__all__ = ["redis_program", "redis_server", "server_folder"]
