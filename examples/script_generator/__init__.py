"""A small, real AI Script Generator: the application that safetake's demo and tests protect.

Two HTTP services over four stores: `project-service` keeps projects and episodes in SQLite,
`generation-service` keeps embeddings in Chroma, a queue and a cache in Redis, and scripts as files.
It writes in one fixed order (row, vector, file, queue entry), each durable before the next, so that
a snapshot that is not one moment can be told from one that is.
"""
