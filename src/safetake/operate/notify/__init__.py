"""Telling people, by Apprise and dead man's switches: a failure once, its end once, secrets never.

`judge` decides what is news, `words` what it says, `deliver` brings it to everybody, also later;
`send` and `child` bound the time of it; `state` remembers.
"""

from safetake.operate.notify.telling import (
    Delivery,
    NotDeliveredError,
    delivery,
    digest,
    ping_start,
    send_test,
    tell,
    tell_overdue,
)

__all__ = [
    "Delivery",
    "NotDeliveredError",
    "delivery",
    "digest",
    "ping_start",
    "send_test",
    "tell",
    "tell_overdue",
]
