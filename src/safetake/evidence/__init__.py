"""Evidence: what a proof, a restore or a drill found, so that somebody else can check it.

One document for each, named by the hash of what it says, that follows the ones before it by their
hashes. Documents lie sealed in the repository (`evidence/`, invisible to stock restic), so they
survive the machine.
"""

from safetake.evidence.document import Check, Draft, Evidence, Step, parse
from safetake.evidence.store import each, load_all, save, verify_chain

__all__ = [
    "Check",
    "Draft",
    "Evidence",
    "Step",
    "each",
    "load_all",
    "parse",
    "save",
    "verify_chain",
]
