"""Chroma stores: a folder taken hot in one moment, or a server exported through its REST API."""

from __future__ import annotations

from safetake.sources.chroma.proof import questions
from safetake.sources.chroma.source import ChromaSource

__all__ = ["ChromaSource", "questions"]
