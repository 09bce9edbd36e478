"""The small real set-up of the command line's tests."""

from tests.cli.conftest import _template, empty, workplace

__all__ = ["_template", "empty", "workplace"]
