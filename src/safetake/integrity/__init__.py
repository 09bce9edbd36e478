"""The live data: is each store sound, do references between stores hold, did one shrink?"""

from safetake.integrity.run import run_integrity

__all__ = ["run_integrity"]
