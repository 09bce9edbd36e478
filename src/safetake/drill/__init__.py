"""Rehearsed disasters on isolated copies: lost, recovered with the real commands, compared."""
