"""Metrics of runs that are over before Prometheus could ask: a text file, a Pushgateway.

The file is written beside and renamed, so that node_exporter never sees half of one. The gateway
gets one group for each backup job, since a group's `job` replaces the `job` of what is in it, and
one group `job="safetake"` for everything else. Each is put whole: what is gone is gone there, too.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from safetake.errors import SafetakeError
from safetake.operate.metrics import deliveries
from safetake.operate.metrics.deliveries import PUSHGATEWAY, TEXTFILE, Deliveries

if TYPE_CHECKING:
    import httpx

    from safetake.config import Config
    from safetake.operate.history import History
    from safetake.operate.metrics.families import Samples

ANSWER_S = 5.0
"""How long one answer of a Pushgateway is waited for."""
PUSH_S = 20.0
"""How long all of them together are."""
GROUP = "safetake"
"""Value of `job` of the group with everything but the document's two names."""
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def publish(config: Config, history: History) -> None:
    """Write and push what [metrics] asks for, in bounded time; nothing when it asks for nothing.

    Each way is tried; a failure is remembered in the state folder. Raises SafetakeError when one
    failed.
    """
    from safetake.operate.metrics.collect import collect, collect_deliveries

    textfile, gateway = config.metrics.textfile, config.metrics.pushgateway
    if textfile is None and gateway is None:
        return
    failed: list[SafetakeError] = []
    with deliveries.one_at_a_time(config):
        known = deliveries.load(config)
        samples = collect(config, _with_repository(config, history), known)
        if gateway is not None:
            try:
                _push(gateway, samples, known)
            except SafetakeError as error:
                failed.append(error)
            known.way(PUSHGATEWAY).tried(history.now_ns(), str(failed[-1]) if failed else "")
        if textfile is not None:
            before = len(failed)
            known.way(TEXTFILE).tried(history.now_ns())
            collect_deliveries(samples, config, known)  # with what became of the push
            try:
                write_textfile(textfile, samples.text())
            except SafetakeError as error:
                failed.append(error)
                known.way(TEXTFILE).tried(history.now_ns(), str(failed[before]))
        with contextlib.suppress(OSError, SafetakeError):  # then only the count is lost
            deliveries.save(config, known)
    if failed:
        raise SafetakeError("; ".join(map(str, failed)), hint=failed[0].hint)


def _with_repository(config: Config, history: History) -> History:
    """The history of the open repository: a run that ended before it opened one says no less."""
    from safetake.connect import open_repository
    from safetake.operate.history import History

    if history.repository is None:
        with contextlib.suppress(OSError, SafetakeError):  # then only the history is left
            return History(config, open_repository(config), now_ns=history.now_ns)
    return history


def write_textfile(path: Path, text: bytes) -> None:
    """Put the file in its place, readable by everybody. Raises SafetakeError."""
    try:
        # no name that ends in .prom: the collector would read it
        fd, beside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(text)
                os.fchmod(file.fileno(), 0o644)
                file.flush()
                os.fsync(file.fileno())
            Path(beside).rename(path)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise SafetakeError(
            f"the metrics could not be written to {path}: {error.strerror}",
            hint="make its folder, writable by who runs safetake, or correct [metrics] textfile",
        ) from error


def groups(samples: Samples) -> dict[str, Samples]:
    """What goes to a Pushgateway, by the value of `job`."""
    from safetake.operate.metrics.families import DOCUMENT, Samples

    ours = {metric.name for metric in DOCUMENT}
    found = {GROUP: samples.without(ours)}
    for name in sorted(ours & samples.values.keys()):
        for (job,) in samples.values[name]:
            found.setdefault(job, Samples()).take(samples.only({name}, job=job))
    return found


def group_path(job: str, instance: str) -> str:
    """Where a group is, below the URL of a Pushgateway; which takes no slash, however quoted."""
    return f"/metrics/{_part('job', job)}/{_part('instance', instance)}"


def _part(label: str, text: str) -> str:
    if _PLAIN.fullmatch(text):
        return f"{label}/{text}"
    return f"{label}@base64/{base64.urlsafe_b64encode(text.encode(errors='replace')).decode()}"


def _push(url: str, samples: Samples, known: Deliveries) -> None:
    """Put every group, and delete those of jobs that are not configured any more."""
    import httpx

    from safetake.hostname import host_name

    host = host_name()
    bodies = {group_path(job, host): group.text() for job, group in groups(samples).items()}
    deadline = time.monotonic() + PUSH_S
    with httpx.Client(timeout=ANSWER_S, follow_redirects=False) as client:
        for group, body in bodies.items():
            _ask(client, "PUT", url, group, body, deadline)
        for group in known.groups:
            if group not in bodies:
                _ask(client, "DELETE", url, group, b"", deadline)
    known.groups = list(bodies)


def _ask(
    client: httpx.Client, method: str, url: str, group: str, body: bytes, deadline: float
) -> None:
    import httpx

    where = f"the Pushgateway at {urlsplit(url).netloc}"
    hint = "is it running, and reachable from here? [metrics] pushgateway names it"
    if time.monotonic() > deadline:
        raise SafetakeError(f"{where} takes longer than {PUSH_S:.0f} s", hint=hint)
    headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    try:
        with client.stream(
            method, url.rstrip("/") + group, content=body, headers=headers
        ) as answer:
            said = b""
            if answer.status_code >= 300:
                said = next(answer.iter_bytes(300), b"")
    except httpx.TimeoutException:
        raise SafetakeError(f"{where} does not answer within {ANSWER_S:.0f} s", hint=hint) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SafetakeError(f"{where} cannot be reached: {error}", hint=hint) from None
    if answer.status_code >= 300:
        words = " ".join(said.decode(errors="replace").split())
        raise SafetakeError(
            f"{where} refused the metrics: status {answer.status_code} {words}".rstrip(),
            hint="something else pushes other series to the same group, or it is no Pushgateway",
        )
