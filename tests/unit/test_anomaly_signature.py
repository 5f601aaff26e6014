"""Signatures of Standard Webhooks 1.0."""

from __future__ import annotations

import pytest

from anomaly.alerts.signature import headers, key_of


def test_the_published_example_of_standard_webhooks_verifies() -> None:
    """Secret, id, timestamp, body and signature as in the reference implementations' own tests."""
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = headers([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert found == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_without_a_secret_there_is_no_signature() -> None:
    assert set(headers([], "id", 1, b"{}")) == {"webhook-id", "webhook-timestamp"}


def test_a_secret_that_is_no_base64_is_refused_without_showing_it() -> None:
    with pytest.raises(ValueError) as refused:
        key_of("whsec_not base64!")
    assert "not base64!" not in str(refused.value)
    assert refused.value.__cause__ is None
