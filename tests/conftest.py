"""What holds for every test: how Hypothesis judges a machine. A slow one is no fault of what is tested."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "yuzui",
    settings(),  # where CI is set, Hypothesis' own: the same examples each time
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("yuzui")
