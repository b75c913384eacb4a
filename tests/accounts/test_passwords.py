"""Passwords that have leaked are refused without asking the network."""

import pytest

from accounts.passwords import is_breached


@pytest.mark.parametrize(
    "password", ["1234567890", "qwertyuiop", "basketball", "Basketball", "michaeljordan", "1q2w3e4r5t"]
)
def test_leaked_passwords_are_known_in_any_case(password: str) -> None:
    assert is_breached(password)


@pytest.mark.parametrize(
    "password", ["correct horse battery", "teal frames at dawn 81", "\N{SNOWMAN}" * 10, ""]
)
def test_other_passwords_are_not(password: str) -> None:
    assert not is_breached(password)
