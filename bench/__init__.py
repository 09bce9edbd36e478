"""Measurements of whole commands on real stores, beside their peers. See README.md here."""
