"""The demo city's registry: points, devices and gateways over the districts, made from a seed.

Owns what stands where and how it is named. How values move is ingest.simulate.city_kinds (read) and
the scenario's business (played); limits are the city's config.
"""

from __future__ import annotations

from ingest.simulate.city_kinds import KindSim, load_kinds

__all__ = ["KindSim", "load_kinds"]
