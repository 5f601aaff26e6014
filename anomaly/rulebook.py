"""Every kind of episode there can be: class, severities and how it is confirmed.

Owns that table, built from the checks and the city's rules. Knows nothing of readings or of how rules judge.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

from anomaly import checks, rules

EVENT: Final = "event"
FAULT: Final = "fault"


@dataclass(frozen=True, slots=True)
class Rule:
    """A kind of episode.

    alert_class  event: the city; fault: our view of it
    severity     of each class
    confirms     waits for the kind's confirm_readings; else the first reading decides
    assessed     value and limit of its alerts are those the rule judged, not the reading's and the registry's
    """

    name: str
    alert_class: str
    severity: tuple[int, ...]
    confirms: bool = False
    assessed: bool = False


_SEVERITIES: Final = (0, 1, 2, 3, 4)
_OWN: Final = (
    Rule("level", EVENT, _SEVERITIES, confirms=True),
    # Faults page low: nobody drowns in a dead sensor. An outage blinds many eyes at once.
    Rule("stuck", FAULT, (0, 1)),
    Rule("dead", FAULT, (0, 1)),
    Rule("outage", FAULT, (0, 2)),
    Rule("device_outage", FAULT, (0, 1)),
    Rule("neighbours", FAULT, (0, 1)),
    Rule("drift", FAULT, (0, 1)),
    # The city, most likely; but nobody knows what it is, so it is said low.
    Rule("anomaly", EVENT, (0, 1)),
)


@cache
def rulebook() -> dict[str, Rule]:
    """All rules by name. Raises ValueError where two have one name."""
    found = [
        *_OWN,
        *(
            Rule(rule.name, rule.alert_class, _SEVERITIES, confirms=True, assessed=True)
            for rule in rules.row_rules()
        ),
        *(Rule(rule.name, rule.alert_class, _SEVERITIES, assessed=True) for rule in rules.tick_rules()),
    ]
    book = {rule.name: rule for rule in found}
    if len(book) < len(found):
        raise ValueError(f"rules share a name: {sorted(rule.name for rule in found)}")
    return book


def followed() -> tuple[str, ...]:
    """The rules whose episodes follow readings, so that each point has a phase in them."""
    return (*checks.row_rules(), "anomaly", *(rule.name for rule in rules.row_rules()))
