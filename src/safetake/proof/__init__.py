"""Proof instead of "success": how a snapshot climbs from stored to read back to opened."""
