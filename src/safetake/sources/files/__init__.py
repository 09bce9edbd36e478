"""Files: a folder as it was at the moment of the cut, with its metadata.

`source` is the way in; `walk` looks, `content` reads, `cut` decides what was there, `session`
holds the order of it, `proof` questions a restored copy.
"""

from safetake.sources.files.proof import questions
from safetake.sources.files.source import FilesSource

__all__ = ["FilesSource", "questions"]
