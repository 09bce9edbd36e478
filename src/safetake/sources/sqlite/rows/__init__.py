"""Rows of a database in a snapshot against the live one: shown, brought back, and taken back again.

The snapshot is attached to a connection of the live database, so that SQLite compares the two by
itself; nothing is restored to disk. `compare` looks, `apply` brings rows back in one transaction
after it has written down durably how to undo it, `back` undoes.
"""
