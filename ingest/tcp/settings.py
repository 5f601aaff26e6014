"""[source.tcp]: who may connect to a source's port, and how much of them is borne.

Owns names, types, defaults and their reasons. The port itself is the source's.
"""

from __future__ import annotations

import ipaddress
from typing import Self

from pydantic import Field, field_validator, model_validator

from storage.settings import Settings

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks_of(allowed: list[str]) -> list[Network]:
    """Addresses and networks as such. Raises ValueError."""
    return [ipaddress.ip_network(one) for one in allowed]


class TcpSettings(Settings):
    """[source.tcp]"""

    host: str = "127.0.0.1"
    """Where to listen; beyond loopback only with `allow` or client certificates: these protocols have no login
    worth the name."""
    allow: list[str] = Field(default_factory=list)
    """Addresses and networks that may connect: ["10.8.0.0/16"]; "0.0.0.0/0" is everybody. Empty: any, on loopback."""
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    tls_client_ca_file: str | None = None
    """With it a station must show a certificate of this authority, and needs no `allow`."""
    connections_max: int = Field(10_000, ge=1)
    connections_per_address_max: int = Field(10_000, ge=1)
    """A mobile network shows many stations under one address."""
    buffer_bytes_max: int = Field(64 * 1024, ge=16 * 1024)
    """Kept of one connection, each way: unfinished frames, and answers it does not take. The largest frame of HJ 212
    has 10 KiB."""
    idle_s_max: float = Field(3_900.0, gt=0)
    """Silent longer than this, a connection is closed. A station that reports once an hour may stay connected."""
    frame_s_max: float = Field(60.0, gt=0)
    """From the first byte of a frame to its last."""

    @field_validator("allow")
    @classmethod
    def check_networks(cls, allowed: list[str]) -> list[str]:
        """Refuse what is no address."""
        networks_of(allowed)
        return allowed

    @model_validator(mode="after")
    def check_strangers(self) -> Self:
        """Refuse a door that stands open to everybody without having been told to."""
        try:
            loopback = ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            loopback = self.host == "localhost"
        if not loopback and not self.allow and self.tls_client_ca_file is None:
            raise ValueError(f"{self.host} is not loopback: say in allow who may connect")
        return self
