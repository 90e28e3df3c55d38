"""What the bodies of requests share."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from qpairs.data.labels import LONGEST_NAME

STRICT = ConfigDict(strict=True, extra="forbid")


def _printable(name: str) -> str:
    return "".join(character for character in name if character.isprintable())


Name = Annotated[str, Field(max_length=LONGEST_NAME), AfterValidator(_printable)]  # of an annotator


class Nothing(BaseModel):
    """Nothing needs to be said."""

    model_config = STRICT
