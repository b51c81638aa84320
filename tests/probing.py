"""Send requests to a health port, as a probe of Kubernetes does."""

import asyncio
import json
from typing import Any


async def exchange(port: int, data: bytes) -> bytes:
    """Send bytes, and return all bytes until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 20)
    except ConnectionResetError:  # the server closed without reading everything
        return b""
    finally:
        writer.close()


async def get(port: int | None, path: str) -> tuple[int, dict[str, Any]]:
    assert port is not None
    answer = await exchange(port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head.lower()
    return int(head.split()[1]), json.loads(body)
