"""Random tokens."""

from taskq_core.wire.tokens import new_token


def test_tokens_are_16_hex_characters() -> None:
    tokens = {new_token() for _ in range(100)}

    assert len(tokens) == 100
    assert all(len(token) == 16 and int(token, 16) >= 0 for token in tokens)
