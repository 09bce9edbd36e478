"""The job queue and the cache in Redis: the last of the four writes.

A queue entry, the job's record and the cached script are written in one transaction. A marker key
tells our database from an empty one: Redis answers PING just as well after it has lost everything.
"""

from __future__ import annotations

import json
from typing import Any

import redis

from .errors import StoreError

MARKER = "script-generator:schema"
MARKER_VALUE = "1"
QUEUE = "script-generator:queue"
JOB = "script-generator:job:"
CACHE = "script-generator:cache:"


class JobStore:
    """The Redis database at `url`. Safe to use from several threads."""

    def __init__(self, url: str, cache_seconds: int = 3600) -> None:
        self.url = url
        self.cache_seconds = cache_seconds
        # redis-py types every answer as bytes | str, whatever decode_responses says
        self._redis: Any = redis.Redis.from_url(
            url, decode_responses=True, socket_timeout=10, socket_connect_timeout=2
        )

    def create(self) -> None:
        """Mark an empty database as ours. Raises StoreError when it holds anything else."""
        try:
            if self._redis.dbsize() and self._redis.get(MARKER) != MARKER_VALUE:
                raise StoreError(f"{self.url} holds keys of something else")
            self._redis.set(MARKER, MARKER_VALUE)
        except redis.RedisError as error:
            raise StoreError(f"{self.url}: {error}") from error

    def enqueue(self, episode_id: str, project_id: str, file: str, text: str) -> None:
        """Queue the job that follows a script, and cache the script; once per episode."""
        entry = json.dumps({"episode_id": episode_id, "file": file})
        try:
            if self._redis.exists(JOB + episode_id):
                return
            with self._redis.pipeline(transaction=True) as together:
                together.hset(
                    JOB + episode_id,
                    mapping={"project_id": project_id, "file": file, "state": "queued"},
                )
                together.rpush(QUEUE, entry)
                together.set(CACHE + episode_id, text, ex=self.cache_seconds)
                together.execute()
        except redis.RedisError as error:
            raise StoreError(f"{self.url}: {error}") from error

    def job(self, episode_id: str) -> dict[str, str]:
        """The job's record; empty when there is none."""
        try:
            return dict(self._redis.hgetall(JOB + episode_id))
        except redis.RedisError as error:
            raise StoreError(f"{self.url}: {error}") from error

    def cached(self, episode_id: str) -> str | None:
        """The cached script, or None."""
        try:
            found = self._redis.get(CACHE + episode_id)
        except redis.RedisError as error:
            raise StoreError(f"{self.url}: {error}") from error
        return None if found is None else str(found)

    def check(self) -> dict[str, Any]:
        """Prove that the server answers, has loaded its data, and that the data is ours."""
        try:
            self._redis.ping()
            if self._redis.info("persistence").get("loading"):
                raise StoreError(f"{self.url} is still loading its data")
            marker = self._redis.get(MARKER)
            if marker != MARKER_VALUE:
                raise StoreError(
                    f"{self.url}: key {MARKER} is {marker or 'missing'}: data was lost"
                )
            return {"queued": self._redis.llen(QUEUE), "keys": self._redis.dbsize()}
        except redis.RedisError as error:
            raise StoreError(f"{self.url}: {error}") from error
