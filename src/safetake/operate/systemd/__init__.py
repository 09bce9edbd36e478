"""Units of systemd for the jobs of a configuration: a timer for each, or the daemon.

`calendar` says a cron expression as systemd does, `units` writes the files.
"""

from safetake.operate.systemd.units import Unit, daemon_units, timer_units

__all__ = ["Unit", "daemon_units", "timer_units"]
