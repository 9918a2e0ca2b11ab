"""What all sections of a configuration are made of: their base, and ranges of values."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
# Goes into file names, metric names and MLflow filters.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
# MLflow takes no other characters.
TagName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./: -]{0,249}$")]


class Section(BaseModel):
    """Base of all sections: unknown keys, loose types and later changes are refused."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, validate_default=True, allow_inf_nan=False
    )
