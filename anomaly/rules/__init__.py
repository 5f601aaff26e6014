"""Rules: limits and conditions of the city, over readings nobody doubts. One module a rule, found by discovery."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING

# Not at import: a config is read without numpy, and its [rules] tables are defined in this package.
if TYPE_CHECKING:
    from anomaly.rules.base import RowRule, TickRule


@cache
def row_rules() -> tuple[RowRule, ...]:
    """Every RULE of a module here that judges rows, by name."""
    from anomaly.rules.base import RowRule

    found = [rule for rule in _found() if isinstance(rule, RowRule)]
    return tuple(sorted(found, key=lambda rule: rule.name))


@cache
def tick_rules() -> tuple[TickRule, ...]:
    """Every RULE of a module here that looks across points once a TICK, by name."""
    from anomaly.rules.base import TickRule

    found = [rule for rule in _found() if isinstance(rule, TickRule)]
    return tuple(sorted(found, key=lambda rule: rule.name))


@cache
def _found() -> tuple[object, ...]:
    modules = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    return tuple(rule for module in modules for rule in getattr(module, "RULES", ()))
