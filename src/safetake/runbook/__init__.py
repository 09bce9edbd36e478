"""The runbook: the ten steps from an emergency to its review, walked through with a person.

What can be done is done by the very commands that an operator would type; what only a person can
decide is asked, with a default. A journal is written before and after each step, so a walk that was
killed goes on where it was, and each step is timed against the RTO.
"""

from safetake.runbook.guide import abandon, resume, start
from safetake.runbook.walk import Person

__all__ = ["Person", "abandon", "resume", "start"]
