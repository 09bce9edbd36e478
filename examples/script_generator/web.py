"""Small HTTP pieces that the services and the load driver share: a client and JSON answers."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from http.client import HTTPConnection, HTTPException
from threading import local
from typing import Any
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .errors import ApplicationError, BadRequestError, ConflictError, NotFoundError, StoreError

KEEP_ALIVE = 60
"""Seconds that a service keeps an idle connection open."""


class Client:
    """JSON over a kept-alive connection per thread. Raises the ApplicationError that it is told."""

    def __init__(self, url: str, timeout: float = 30.0) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise BadRequestError(f"not an http:// URL: {url}")
        self.url = url
        self._host, self._port, self._timeout = parts.hostname, parts.port or 80, timeout
        self._local = local()

    def get(self, path: str) -> Any:
        """The decoded answer of a GET."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The decoded answer of a POST. Never sent twice: the caller decides."""
        return self._ask("POST", path, json.dumps(body).encode())

    def _ask(self, method: str, path: str, body: bytes | None) -> Any:
        connection: HTTPConnection | None = getattr(self._local, "connection", None)
        now = time.monotonic()
        if connection is None or now - self._local.used > KEEP_ALIVE / 2:
            if connection is not None:
                connection.close()  # the server may be about to close it
            connection = HTTPConnection(self._host, self._port, timeout=self._timeout)
            self._local.connection = connection
        self._local.used = now
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
        except (OSError, HTTPException) as error:
            connection.close()
            raise StoreError(f"{self.url} does not answer: {error!r}") from error
        try:
            decoded = json.loads(answer)
        except ValueError:
            raise StoreError(f"{self.url}{path} answered no JSON ({response.status})") from None
        if response.status >= 400:
            kinds = (NotFoundError, ConflictError, BadRequestError)
            kind = next((each for each in kinds if each.status == response.status), StoreError)
            raise kind(str(decoded.get("error", decoded)))
        return decoded


def answering(
    work: Callable[[Request, dict[str, Any]], tuple[int, Any]],
) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint from a blocking function of (request, JSON body) to (status, JSON answer)."""

    async def endpoint(request: Request) -> Response:
        try:
            body: Any = {}
            if request.method == "POST":
                try:
                    body = json.loads(await request.body())
                except ValueError:
                    body = None
                if not isinstance(body, dict):
                    raise BadRequestError("the body is not a JSON object")
            status, answer = await run_in_threadpool(work, request, body)
        except ApplicationError as error:
            return JSONResponse({"error": str(error)}, error.status)
        return JSONResponse(answer, status)

    return endpoint


def health(service: str, checks: Mapping[str, Callable[[], dict[str, Any]]]) -> tuple[int, Any]:
    """200 when every store is there and right, else 503; each store says what it found."""
    stores: dict[str, Any] = {}
    for name, check in checks.items():
        try:
            stores[name] = {"ok": True, **check()}
        except ApplicationError as error:
            stores[name] = {"ok": False, "problem": str(error)}
    ok = all(store["ok"] for store in stores.values())
    answer = {"service": service, "status": "ok" if ok else "unavailable", "stores": stores}
    return (200 if ok else 503), answer


def text(body: Mapping[str, Any], key: str) -> str:
    """A non-empty string of a body. Raises BadRequestError."""
    value = body.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadRequestError(f"{key!r} has to be a text that is not empty")
    return value


def optional_text(body: Mapping[str, Any], key: str) -> str | None:
    """As `text`, or None when the key is absent."""
    return None if body.get(key) is None else text(body, key)
