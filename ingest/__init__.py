"""From the wire to the journal, and the composition of the engine."""

from ingest import kernelcache

# Here, because it must come before the first import of numba, wherever that stands.
kernelcache.settle()
