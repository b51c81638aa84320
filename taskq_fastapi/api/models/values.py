"""What several answers are made of."""

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

ID = "01981b0c-7b0e-7cc3-98a9-0f8d3c6c7a51"


def _printable(value: object) -> object:
    """Half characters stand for bytes of a foreign producer that are no UTF-8; an answer cannot hold them."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_printable)]
Seconds = timedelta


class Record(BaseModel):
    """A record of the core."""

    model_config = ConfigDict(from_attributes=True, ser_json_timedelta="float")


class Octets(BaseModel):
    """Bytes of a task, in the form in which they can be read."""

    size: int = Field(description="How many bytes.", examples=[12])
    format: Literal["json", "text", "base64"] | None = Field(
        default=None, description="What `value` is.", examples=["json"]
    )
    value: Any = Field(default=None, examples=[{"to": "a@example.com"}])
    omitted: Literal["hidden", "large"] | None = Field(
        default=None, description="Why `value` is not shown: you may not see it, or a list is no place for it."
    )


def text(value: str) -> str:
    """Return a text of the core as an answer can hold it."""
    return str(_printable(value))
