"""What the services answer with when they cannot do what was asked."""

from __future__ import annotations


class ApplicationError(Exception):
    """Base: `status` is the HTTP status that a service answers."""

    status = 500


class StoreError(ApplicationError):
    """A store is gone or wrong; the message says which and what."""

    status = 503


class NotFoundError(ApplicationError):
    """There is no such project, episode or script."""

    status = 404


class ConflictError(ApplicationError):
    """The id is taken by something else, or what it refers to does not exist."""

    status = 409


class BadRequestError(ApplicationError):
    """The request is not what the endpoint takes."""

    status = 400
