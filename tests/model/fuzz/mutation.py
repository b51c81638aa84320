"""Random changes of bytes for fuzzing."""

import random
from collections.abc import Sequence

_SPECIAL = (
    b"\x00",
    b"\xff",
    b"\xed\xa0\x80",  # a lone surrogate
    b"\xf0\x9f\x9a\x80",
    b"9" * 25,
    b"-",
    b"1e999",
    b"NaN",
    b"null",
    b"[" * 200,
    b'{"a":' * 200,
    b"\\ud800",
    b"\r\n",
    b"{}",
    b"}",
    b"%00",
    b"@",
    b":",
    b",",
    b"*/",
    b"\x80" * 11,  # a varint without an end
    b"\x7a\x05",
)
LONGEST = 4096


def mutate(data: bytes, others: Sequence[bytes], draw: random.Random) -> bytes:
    """Return `data` with up to four random changes. Some changes insert pieces of `others`."""
    out = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        at = draw.randint(0, len(out))
        to = min(len(out), at + draw.choice((1, 1, 2, 4, 16, 64)))
        match draw.randint(0, 6):
            case 0:
                del out[at:to]
            case 1:
                out[at:at] = draw.choice(_SPECIAL)
            case 2 if out:
                out[at % len(out)] = draw.randint(0, 255)
            case 3 if out:
                out[at % len(out)] ^= 1 << draw.randint(0, 7)
            case 4:
                out[at:at] = out[at:to] * draw.randint(1, 8)
            case 5 if others:
                other = draw.choice(others)
                cut = draw.randint(0, len(other))
                out[at:to] = other[cut : cut + draw.randint(1, 64)]
            case _:
                out[at:to] = bytes(draw.randint(0, 255) for _ in range(draw.randint(1, 8)))
    return bytes(out[:LONGEST])
