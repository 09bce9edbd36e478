"""generation-service (:8002): writes scripts, embeds them, queues what follows.

The order of writes is the application's promise, and what snapshots are judged by: the episode's
row is there before, then vector, file, queue entry, each durable before the next.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from .errors import BadRequestError
from .jobs import JobStore
from .scripts import ScriptStore
from .settings import Settings
from .vectors import VectorStore
from .web import Client, answering, health, text
from .writing import embed, write_script

NAME = "generation-service"


class Generator:
    """The three stores of generation-service, written in the promised order."""

    def __init__(self, settings: Settings) -> None:
        self.vectors = VectorStore(Path(settings.chroma_path))
        self.scripts = ScriptStore(Path(settings.scripts_dir))
        self.jobs = JobStore(settings.redis_url, settings.cache_seconds)

    def generate(self, episode: dict[str, Any]) -> dict[str, Any]:
        """Write the script of an episode whose row exists; again changes nothing."""
        episode_id, project_id = episode["id"], episode["project_id"]
        script = write_script(episode_id, episode["title"], episode["synopsis"])
        self.vectors.put(episode_id, embed(script), script, project_id)
        file = self.scripts.put(project_id, episode_id, script)
        self.jobs.enqueue(episode_id, project_id, file, script)
        return {
            "episode_id": episode_id,
            "file": file,
            "characters": len(script),
            "cache_seconds": self.jobs.cache_seconds,
        }


def application(settings: Settings) -> Starlette:
    """The service. Starts whatever state its stores are in, and says so in its health."""
    stores = Generator(settings)
    projects = Client(settings.project_service_url)

    def generate(request: Request, body: dict[str, Any]) -> tuple[int, Any]:
        episode_id = text(body, "episode_id")
        episode = projects.get(f"/api/v1/episodes/{quote(episode_id, safe='')}")
        return 201, stores.generate(episode)

    def script(request: Request, body: dict[str, Any]) -> tuple[int, Any]:
        episode_id = request.path_params["episode"]
        cached = stores.jobs.cached(episode_id)
        if cached is not None:
            return 200, {"episode_id": episode_id, "script": cached, "from": "cache"}
        episode = projects.get(f"/api/v1/episodes/{quote(episode_id, safe='')}")
        found = stores.scripts.text(episode["project_id"], episode_id)
        return 200, {"episode_id": episode_id, "script": found, "from": "file"}

    def search(request: Request, body: dict[str, Any]) -> tuple[int, Any]:
        query = request.query_params.get("q", "").strip()
        if not query:
            raise BadRequestError("say what to search for: ?q=…")
        return 200, stores.vectors.search(embed(query))

    def job(request: Request, body: dict[str, Any]) -> tuple[int, Any]:
        return 200, stores.jobs.job(request.path_params["episode"])

    def check(request: Request, body: dict[str, Any]) -> tuple[int, Any]:
        checks = {
            "chroma": stores.vectors.check,
            "redis": stores.jobs.check,
            "files": stores.scripts.check,
        }
        return health(NAME, checks)

    api = "/api/v1"
    return Starlette(
        routes=[
            Route(f"{api}/health", answering(check)),
            Route(f"{api}/generate", answering(generate), methods=["POST"]),
            Route(f"{api}/scripts/{{episode}}", answering(script)),
            Route(f"{api}/search", answering(search)),
            Route(f"{api}/jobs/{{episode}}", answering(job)),
        ]
    )
