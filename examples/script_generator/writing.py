"""The "AI": writes a script and embeds it, deterministically and without a model.

The same episode always gives the same text and the same float32 vector, bit for bit. That is what
lets a comparison recompute what a restored store must hold.
"""

from __future__ import annotations

import math
from array import array
from functools import lru_cache
from itertools import pairwise
from random import Random
from zlib import crc32

DIMENSIONS = 128

_NAMES = ("MINA", "JUNHO", "SORA", "DANIEL", "HANA", "THE DOCTOR", "A STRANGER", "GRANDMOTHER")
_PLACES = ("HAN RIVER BRIDGE", "NEWSROOM", "ROOFTOP", "SUBWAY LINE 2", "OLD THEATRE", "KITCHEN")
_VOCABULARY = """
    again always answer before believe bridge broken camera careful city close clock cold dark
    daughter door dream early empty ending evening film find first follow forget ghost hands
    hear hidden hold home hour keep known late leave letter light listen long lost memory
    message mirror moment morning mother move name never night nobody old open paper past
    picture promise question quiet rain remember return river road safe scene second secret
    seoul shadow silence sister sleep someone stage stay story street take tell thing time
    tomorrow train true turn voice wait wall watch water window winter word write wrong year
"""
_WORDS = tuple(_VOCABULARY.split())
_KOREAN = ("다시 한 번 찍을게요.", "한 컷 더, 만약을 위해서.", "아무도 모르게 해 줘.", "기억나?")


def write_script(episode_id: str, title: str, synopsis: str) -> str:
    """The script of an episode: one to seven kilobytes of scenes, the same for the same input."""
    random = Random(f"{episode_id}\0{title}\0{synopsis}")
    lines = [title.upper(), "", synopsis, ""]
    for scene in range(1, random.randint(3, 12)):
        where = random.choice(("INT.", "EXT."))
        lines.append(
            f"{scene}. {where} {random.choice(_PLACES)} - {random.choice(('DAY', 'NIGHT'))}"
        )
        for _ in range(random.randint(2, 9)):
            words = " ".join(random.choices(_WORDS, k=random.randint(3, 14)))
            lines += [f"    {random.choice(_NAMES)}", f"  {words.capitalize()}."]
        if random.random() < 0.3:
            lines.append(f"  {random.choice(_KOREAN)}")
        lines.append("")
    return "\n".join([*lines, f"END OF {episode_id}", ""])


def embed(text: str) -> array[float]:
    """A normalised float32 vector of DIMENSIONS: hashed words and word pairs, signed.

    Sums of whole numbers, one square root and one division per entry: exact on every platform.
    """
    words = text.split()
    sums = [0] * DIMENSIONS
    for gram in (*words, *map(" ".join, pairwise(words))):
        digest = crc32(gram.encode())
        sums[digest % DIMENSIONS] += 1 if digest & 0x80000000 else -1
    norm = math.sqrt(sum(value * value for value in sums)) or 1.0
    return array("f", [value / norm for value in sums])


@lru_cache(maxsize=65536)
def expected_script(episode_id: str, title: str, synopsis: str) -> tuple[str, bytes]:
    """Text and vector bytes of an episode, remembered for comparisons of many snapshots."""
    text = write_script(episode_id, title, synopsis)
    return text, embed(text).tobytes()
