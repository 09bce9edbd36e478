"""The stores of the sample application, as its own tests have them."""

from tests.examples.conftest import redis_server

__all__ = ["redis_server"]
