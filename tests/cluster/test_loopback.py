import pytest

from cluster.client import Client, ServiceError
from cluster.loopback import is_loopback


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.5.6.7", "::1"])
def test_what_only_this_machine_reaches(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["127.example.com", "127.0.0.1.example.com", "localhost.example.com", "10.0.0.1", ""])
def test_a_name_that_begins_like_a_loopback_is_none(host: str) -> None:
    assert not is_loopback(host)


def test_a_token_does_not_go_to_a_name_that_begins_like_a_loopback() -> None:
    with pytest.raises(ServiceError, match="a token would cross the network"):
        Client("http://127.example.com:8321", token="msw_secret", insecure=False)
