"""safetake: one consistent, proven snapshot of SQLite, Chroma, Redis and files."""

__version__ = "0.1.0"
