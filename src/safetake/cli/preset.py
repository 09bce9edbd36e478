"""The policy of `init --preset ai-script-generator`: what its operators' document asks for.

Schedules, retention, targets and checks are those of the document; what it leaves open is said in
the file itself, beside the line that settles it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

NAMES = ("ai-script-generator",)
REPOSITORY = "/data/backup"
SOURCES: dict[str, tuple[str, str, str]] = {
    "sqlite": ("projects", "path", "/data/projects.db"),
    "chroma": ("vectors", "path", "/data/chroma"),
    "redis": ("queue", "url", "redis://127.0.0.1:6379"),
    "files": ("scripts", "path", "/data/scripts"),
}
"""By type: name, key and default place."""


def policy(places: Mapping[str, tuple[str, str]], zone: str, quote: Callable[[str], str]) -> str:
    """Everything after `[repository]`. `places`: by type, the key and value of its source; `quote`
    makes a TOML string.
    """
    text = _POLICY
    for kind, (_, key, place) in SOURCES.items():
        key, place = places.get(kind, (key, place))
        text = text.replace(f"@{kind}@", f"{key} = {quote(place)}")
    return text.replace("@zone@", quote(zone))


_POLICY = """
# ---------------------------------------------------------------- what is protected

[sources.projects]
type = "sqlite"
@sqlite@

[[sources.projects.checks]]
name = "orphaned episodes"
sql = '''
SELECT id FROM episodes e WHERE NOT EXISTS (SELECT 1 FROM projects p WHERE p.id = e.project_id)'''

[sources.vectors]
type = "chroma"
@chroma@

[sources.queue]
type = "redis"
@redis@
may_be_empty = true         # a queue that is done is no loss

[sources.scripts]
type = "files"
@files@

# ------------------------------------------------------------------- when, and what
# `safetake run` is the daemon that runs them; or units of systemd, or CronJobs of Kubernetes.

[jobs.sqlite-backup]        # its name is that of the alert's metric
kind = "backup"
sources = ["projects"]
schedule = "0 */6 * * *"
timezone = @zone@

[jobs.chroma-backup]
kind = "backup"
sources = ["vectors"]
schedule = "0 2 * * *"
timezone = @zone@

[jobs.queue-backup]         # Redis and files: as often as SQLite
kind = "backup"
sources = ["queue", "scripts"]
schedule = "0 */6 * * *"
timezone = @zone@

[jobs.system-backup]        # all four at one moment, to bring the whole system back
kind = "backup"
schedule = "30 2 * * *"
timezone = @zone@

[jobs.verify]               # the newest snapshot of each store is restored, opened and queried
kind = "verify"
schedule = "0 3 * * *"
timezone = @zone@

[jobs.integrity]            # the live data, each store and the references between them
kind = "integrity"
schedule = "0 4 * * *"
timezone = @zone@

[jobs.prune]
kind = "prune"
schedule = "0 5 * * *"
timezone = @zone@

[jobs.check]                # every byte of the repository, on Sundays
kind = "check"
read_data = true
schedule = "30 5 * * 0"
timezone = @zone@

# -------------------------------------------------------------------- how long

[retention]
hourly = "24h"
daily = "30d"
weekly = "12w"
monthly = "12m"
timezone = @zone@

# ------------------------------------------------------------------- what is promised

[objectives.projects]
rpo = "6h"
rto = "15m"
partial_rto = "5m"

[objectives.vectors]
rpo = "24h"
rto = "30m"

[objectives.queue]
rpo = "6h"

[objectives.scripts]
rpo = "6h"

[objectives.system]
rto = "60m"

# ------------------------------------------------------------------- the applications
# A restore in place asks whether they are well. To let it stop and start them as well, add
# `systemd = "…"`, `compose = "…"`, `kubernetes = "deployment/…"`, or `stop` and `start`.

[services.project-service]
uses = ["projects"]
health = "http://127.0.0.1:8001/api/v1/health"

[services.generation-service]
uses = ["vectors", "queue", "scripts"]
health = "http://127.0.0.1:8002/api/v1/health"

# ------------------------------------------------------------------- who hears of it
# The file holds one URL in each line, such as https://hooks.slack.com/services/…; it is a secret
# (mode 0600). Then try `safetake notify test`.
#
# [notify]
# urls_file = "notify-urls"
# on = ["failure", "recovery", "overdue", "digest"]
# timezone = @zone@

# ------------------------------------------------------------------- between the stores
# What refers to what, for the daily integrity check. Take away the '#' and correct the names:
#
# [references.embedding-of-a-project]
# from = { source = "vectors", collection = "scripts", field = "project_id" }
# to = { source = "projects", sql = "SELECT id FROM projects" }

# ------------------------------------------------------------------- a second repository
# The one above lies on the volume that it protects. A copy elsewhere survives that volume:
#
# [copies.second]
# location = "/mnt/elsewhere/backup"
# password_file = "safetake.password"
#
# [jobs.copy]
# kind = "copy"
# to = "second"
# schedule = "0 6 * * *"
# timezone = @zone@

# ------------------------------------------------------------------- on Kubernetes
# `safetake kubernetes` renders the jobs above as CronJobs. There, name Services instead of
# 127.0.0.1, the `image` with its digest, and the user that owns the data: how-to/kubernetes.md.

[kubernetes]
namespace = "ai-script-generator"
# user = 1000
# group = 1000
# fs_group = 1000

[kubernetes.volumes.data]   # the claim of the project service, reached on the node of its pods
claim = "project-service-data"
mount = "/data"
used_by = { app = "project-service" }
"""
