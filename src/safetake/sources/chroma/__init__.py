"""Chroma stores: a folder taken hot in one moment, or a server exported through its REST API."""
