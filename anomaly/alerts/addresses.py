"""Which addresses a webhook may reach, and a resolver that hands out no other.

Owns the rule and the resolver. Targets come from the operator's config, so loopback and private addresses
are allowed. What no config means by a name is refused: link-local and cloud metadata, multicast,
unspecified, also hidden in IPv6. The addresses returned are the ones connected to: nothing is resolved a
second time between the check and the connection.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult

from anomaly.settings import WebhookSettings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

METADATA: Final = frozenset(ipaddress.ip_address(text) for text in ("169.254.169.254", "fd00:ec2::254"))
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")


class AddressRefusedError(OSError):
    """A name that resolves to an address no webhook may reach."""


def refusal(address: str) -> str | None:
    """Why ``address`` (a literal, zone allowed) is refused to names; None where it may be called."""
    seen = ipaddress.ip_address(address.partition("%")[0])
    for one in (seen, *_inner(seen)):
        if one in METADATA:
            return "metadata address"
        if one.is_link_local:
            return "link-local address"
        if one.is_multicast:
            return "multicast address"
        if one.is_unspecified:
            return "unspecified address"
    return None


def _inner(address: Address) -> list[Address]:
    """IPv4 addresses that an IPv6 address stands for."""
    if not isinstance(address, ipaddress.IPv6Address):
        return []
    inner: list[Address] = [a for a in (address.ipv4_mapped, address.sixtofour) if a is not None]
    inner += list(address.teredo or ())
    # ::1 lies in the old compatible range and is loopback, not 0.0.0.1; :: itself is unspecified as it is.
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return inner


def literal_refusal(webhook: WebhookSettings) -> str | None:
    """Why a target whose URL names an address is never called; None where it may be, or where it has a name.

    An address written out is meant; link-local and metadata ones also want ``allow_link_local``.
    """
    host = urlsplit(webhook.url).hostname or ""
    try:
        reason = refusal(host)
    except ValueError:
        return None
    if reason in ("metadata address", "link-local address") and webhook.allow_link_local:
        return None
    return reason


class CheckedResolver(AbstractResolver):
    """Resolves on one thread of its own, so a name server that hangs delays no other target."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="webhook-dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of ``host``.

        Raises AddressRefusedError if any of them is refused, OSError if none is found.
        """
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._thread, lambda: _look_up(host, port, family))
        for _, _, address in found:
            reason = refusal(address)
            if reason is not None:
                raise AddressRefusedError(f"{reason} behind a name")
        return [
            ResolveResult(
                hostname=host, host=address, port=port, family=of, proto=proto, flags=socket.AI_NUMERICHOST
            )
            for of, proto, address in found
        ]

    async def close(self) -> None:
        """Let go of the thread; a look-up that hangs ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int, family: int) -> list[tuple[int, int, str]]:
    entries = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    found = []
    for of, _, proto, _, where in entries:
        address = str(where[0])
        if of == socket.AF_INET6 and len(where) == 4 and where[3]:
            address = f"{address.partition('%')[0]}%{where[3]}"
        found.append((int(of), proto, address))
    return found
