"""The process that sends, `python -m safetake.operate.notify.child`: JSON in, lines of JSON out.

What hangs in a library or in a network is killed with it, after what others have reported. URLs
come by stdin, since arguments can be seen by everybody. Apprise's own words are not passed on, as
they may quote a URL: only what kind of failure it was.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_STATUS = re.compile(r"error=(\d{3})")
_MANY = 16
_ANSWER = 1 << 16


def _notify(work: dict[str, Any]) -> str:
    """Tell one target; returns why not, or nothing."""
    from apprise import Apprise, AppriseAsset

    asset = AppriseAsset(app_id="safetake", app_desc="safetake", app_url="", async_mode=False)
    service = Apprise(asset=asset)
    if not service.add(work["url"]):
        return "it is no URL that Apprise knows"
    sent = service.notify(
        body=work["body"], title=work["title"], notify_type=work["level"], body_format="text"
    )
    return "" if sent else _reason(sent)


def _reason(result: Any) -> str:
    """What kind of failure Apprise told of, as far as it did (before 2.0 it answers yes or no)."""
    try:
        texts = [str(log.message) for one in result for attempt in one for log in attempt.logs]
    except (TypeError, AttributeError):
        texts = []
    for text in texts:
        status = _STATUS.search(text)
        if status:
            return f"HTTP status {status[1]}"
    return "no connection" if any("onnection" in text for text in texts) else "it was not accepted"


def _ping(work: dict[str, Any]) -> str:
    import urllib.error
    import urllib.request

    url = work["url"]
    if not url.lower().startswith(("http://", "https://")):
        return "it is no http URL"
    request = urllib.request.Request(
        url, data=work["body"].encode(), headers={"User-Agent": "safetake"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=float(work["timeout"])) as answer:
            answer.read(_ANSWER)
    except urllib.error.HTTPError as error:
        return f"HTTP status {error.code}"
    except TimeoutError:
        return "no answer in time"
    except (OSError, ValueError):  # their words may hold the URL
        return "no connection"
    return ""


def main() -> int:
    """Do all that stdin says, each in a thread; one line of JSON for each as it ends."""
    todo = json.loads(sys.stdin.buffer.read())
    lock = threading.Lock()

    def do(number: int, work: dict[str, Any]) -> None:
        try:
            error = _ping(work) if work["kind"] == "ping" else _notify(work)
        except Exception as failure:  # noqa: BLE001 - of a plugin; its words may hold the URL
            error = f"unexpected: {type(failure).__name__}"
        with lock:
            sys.stdout.write(json.dumps({"number": number, "error": error}) + "\n")
            sys.stdout.flush()

    if any(work["kind"] != "ping" for work in todo):
        import apprise  # noqa: F401 - before the threads
    with ThreadPoolExecutor(min(_MANY, max(1, len(todo)))) as pool:
        for number, work in enumerate(todo):
            pool.submit(do, number, work)
    return 0


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # a library may have left threads behind
