"""Passwords in a file, which is read for every connection.

When an agent for secrets or Kubernetes changes the file, open connections keep working and the next one uses the new
password. Nothing has to be restarted.
"""

from pathlib import Path

from redis import ConnectionError as RedisConnectionError
from redis.credentials import CredentialProvider

FILE_MAX = 64 * 1024
"""Most bytes of a file that holds a password."""


class PasswordFile(CredentialProvider):
    """A user whose password is in a file.

    Args:
        path: The file. It holds the password and nothing else but a line's end.
        username: The user; None for the default one.
    """

    def __init__(self, path: str, username: str | None) -> None:
        self._path = Path(path)
        self._username = username

    def __repr__(self) -> str:
        return f"PasswordFile({str(self._path)!r})"

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return what AUTH is sent.

        Raises:
            redis.ConnectionError: The file cannot be read, or holds no password. The caller tries again,
                as with a server that is not reached.
        """
        try:
            with self._path.open("rb") as file:
                data = file.read(FILE_MAX + 1)
            password = data.decode().rstrip("\r\n")
        except OSError as error:
            raise RedisConnectionError(f"cannot read the password file {self._path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise RedisConnectionError(f"the password file {self._path} holds no UTF-8 text") from None
        if not password:
            raise RedisConnectionError(f"the password file {self._path} is empty")
        if len(data) > FILE_MAX or "\n" in password:
            raise RedisConnectionError(f"the password file {self._path} holds more than one line")
        return (password,) if self._username is None else (self._username, password)
