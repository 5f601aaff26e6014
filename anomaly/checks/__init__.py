"""The checks: one file each, found by looking.

Owns only the search: a module of this package with a ``CHECK`` is a check, in the order of its bit in
storage.flags.CHECK_BITS. Adding a check is adding a file; the contract suite then holds it to the rest.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from anomaly.checks.rows import RowCheck
from storage.flags import CHECK_BITS


@cache
def all_checks() -> tuple[RowCheck, ...]:
    """Every check of this package, stateless ones first, then by their bit."""
    modules = (import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__))
    checks = [module.CHECK for module in modules if hasattr(module, "CHECK")]
    return tuple(sorted(checks, key=lambda check: (check.stateful, CHECK_BITS[check.name])))


def row_rules() -> tuple[str, ...]:
    """The alert rules that follow a check of readings."""
    return tuple(check.rule for check in all_checks() if check.rule is not None)
