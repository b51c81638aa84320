"""Read the password of a user from a file each time a connection is opened.

When a secrets agent or Kubernetes changes the file, open connections keep working and new ones use the new password.
No restart is needed.
"""

from pathlib import Path

from redis import ConnectionError as RedisConnectionError
from redis.credentials import CredentialProvider

FILE_MAX = 64 * 1024
"""Maximum size of a password file in bytes."""


class PasswordFile(CredentialProvider):
    """A user whose password is in a file.

    Args:
        path: The file. It contains only the password and maybe a line break.
        username: The user, None for the default user.
    """

    def __init__(self, path: str, username: str | None) -> None:
        self._path = Path(path)
        self._username = username

    def __repr__(self) -> str:
        return f"PasswordFile({str(self._path)!r})"

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return the arguments of AUTH.

        Raises:
            redis.ConnectionError: The file cannot be read or contains no password. The caller tries again, as for a
                server that cannot be reached.
        """
        try:
            with self._path.open("rb") as file:
                data = file.read(FILE_MAX + 1)
            password = data.decode().rstrip("\r\n")
        except OSError as error:
            raise RedisConnectionError(f"cannot read the password file {self._path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise RedisConnectionError(f"the password file {self._path} is not UTF-8 text") from None
        if not password:
            raise RedisConnectionError(f"the password file {self._path} is empty")
        if len(data) > FILE_MAX or "\n" in password:
            raise RedisConnectionError(f"the password file {self._path} has more than one line")
        return (password,) if self._username is None else (self._username, password)
