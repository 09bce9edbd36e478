"""Bringing snapshots back. Beside the live data now; the undoable restore in place comes later."""
