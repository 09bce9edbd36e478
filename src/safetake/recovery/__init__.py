"""Restores in place that can be undone: the order of things, and the journal."""
