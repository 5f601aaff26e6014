"""Which addresses a webhook may reach."""

from __future__ import annotations

import pytest

from anomaly.alerts.addresses import AddressRefusedError, CheckedResolver, literal_refusal, refusal
from anomaly.settings import WebhookSettings


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.0.1",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "::ffff:169.254.169.254",
        "::ffff:0.0.0.0",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "::169.254.169.254",
    ],
)
def test_no_name_leads_to_what_no_config_means(address: str) -> None:
    assert refusal(address) is not None


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "10.0.0.7", "192.168.1.1", "fd12::7", "8.8.8.8", "2400::1"]
)
def test_loopback_private_and_public_addresses_may_be_called(address: str) -> None:
    assert refusal(address) is None


def hook(url: str, **values: bool) -> WebhookSettings:
    return WebhookSettings.model_validate({"name": "w", "url": url, **values})


def test_a_literal_is_called_only_where_the_config_insists() -> None:
    assert literal_refusal(hook("http://169.254.169.254/x")) == "metadata address"
    assert literal_refusal(hook("http://169.254.169.254/x", allow_link_local=True)) is None
    assert literal_refusal(hook("http://[::ffff:169.254.169.254]/", allow_link_local=False)) is not None
    assert literal_refusal(hook("http://0.0.0.0:8080/", allow_link_local=True)) == "unspecified address"
    assert literal_refusal(hook("http://127.0.0.1:8080/")) is None
    assert literal_refusal(hook("http://hooks.example/")) is None


async def test_numbers_that_are_no_literal_are_resolved_and_checked() -> None:
    """2852039166 is 169.254.169.254 to the C library, and no address to a parser of URLs."""
    resolver = CheckedResolver()
    with pytest.raises(AddressRefusedError):
        await resolver.resolve("2852039166", 80)
    await resolver.close()


async def test_the_addresses_handed_out_are_numeric() -> None:
    resolver = CheckedResolver()
    found = await resolver.resolve("localhost", 8080)
    await resolver.close()
    assert {one["host"] for one in found} <= {"127.0.0.1", "::1"}
    assert found
    assert all(one["port"] == 8080 for one in found)
