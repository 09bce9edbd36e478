"""Starts one command and tells what it took: `python -S -E launch.py FD COMMAND …`.

A process' peak memory, as the kernel counts it, starts at that of the process which forked it. The
benchmark itself is large, so commands are started from this small one.
"""

import json
import os
import sys
import time


def main() -> int:
    """Run the command; write its figures as JSON to the descriptor."""
    report, command = int(sys.argv[1]), sys.argv[2:]
    os.set_inheritable(report, False)
    started = time.perf_counter()
    process = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - started
    figures = {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss * 1024 / 1e6,
        "code": os.waitstatus_to_exitcode(status),
    }
    os.write(report, json.dumps(figures).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
