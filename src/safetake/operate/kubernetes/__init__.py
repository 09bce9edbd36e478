"""Renders the configuration as objects of Kubernetes. Talks to no cluster, reads no secret.

`make_plan` judges the configuration, `objects` writes it as manifests, `chart_values` as values
of the Helm chart in deploy/helm, which renders the same.
"""

from __future__ import annotations

from safetake.operate.kubernetes.objects import objects as objects
from safetake.operate.kubernetes.plan import Mode as Mode
from safetake.operate.kubernetes.plan import Plan as Plan
from safetake.operate.kubernetes.plan import make_plan as make_plan
from safetake.operate.kubernetes.values import chart_values as chart_values
