"""project-service (:8001): projects and episodes."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from .errors import BadRequestError
from .projects import ProjectStore
from .settings import Settings
from .web import answering, health, optional_text, text

NAME = "project-service"


def application(settings: Settings) -> Starlette:
    """The service. Starts whatever state its store is in, and says so in its health."""
    store = ProjectStore(settings.database_path)

    def add_project(request: Request, body: dict[str, Any]) -> tuple[int, Any]:
        title = text(body, "title")
        return 201, store.add_project(title, optional_text(body, "id"))

    def add_episode(request: Request, body: dict[str, Any]) -> tuple[int, Any]:
        title, synopsis = text(body, "title"), text(body, "synopsis")
        number = body.get("number")
        if number is not None and type(number) is not int:
            raise BadRequestError("'number' has to be a whole number")
        return 201, store.add_episode(
            request.path_params["project"],
            title,
            synopsis,
            episode_id=optional_text(body, "id"),
            number=number,
        )

    api = "/api/v1"
    return Starlette(
        routes=[
            Route(
                f"{api}/health",
                answering(lambda request, body: health(NAME, {"sqlite": store.check})),
            ),
            Route(f"{api}/projects", answering(add_project), methods=["POST"]),
            Route(f"{api}/projects", answering(lambda request, body: (200, store.projects()))),
            Route(
                f"{api}/projects/{{project}}",
                answering(
                    lambda request, body: (200, store.project(request.path_params["project"]))
                ),
            ),
            Route(f"{api}/projects/{{project}}/episodes", answering(add_episode), methods=["POST"]),
            Route(
                f"{api}/episodes/{{episode}}",
                answering(
                    lambda request, body: (200, store.episode(request.path_params["episode"]))
                ),
            ),
        ]
    )
