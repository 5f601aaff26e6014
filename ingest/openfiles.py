"""The limit of open files: Linux gives a process 1,024 where the hard limit is far above.

Owns raising the soft limit to the hard one, which needs no right. A thousand gateways need more.
"""

from __future__ import annotations

import resource


def raise_open_files() -> int:
    """Set the soft limit of open files to the hard one; the limit then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
