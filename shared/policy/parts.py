"""What all parts of the policy document have in common: strict fields, and rules that are checked beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import (
    AliasGenerator,
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import InitErrorDetails


class Part(BaseModel):
    """A part of the document: frozen, camelCase outside, no value taken for another type, no unknown key."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        field_title_generator=lambda name, _: to_camel(name),
        alias_generator=AliasGenerator(validation_alias=to_camel, serialization_alias=to_camel),
    )

    @classmethod
    def broken_rules(cls, said: Mapping[Any, Any]) -> Iterator[str]:  # noqa: ARG003  what a part with rules looks at
        """Yield a sentence for each rule between the fields that this part breaks, as it was written.

        The values are not checked yet: a rule keeps silent about those that it can't judge.
        """
        yield from ()

    @model_validator(mode="wrap")
    @classmethod
    def _with_its_rules(cls, said: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        """Check the rules beside the fields, not after them: a document names all its faults at once."""
        broken = list(cls.broken_rules(said)) if isinstance(said, Mapping) else []
        if not broken:
            return read(said)
        faults: list[InitErrorDetails] = [
            {"type": "value_error", "loc": (), "input": None, "ctx": {"error": ValueError(sentence)}}
            for sentence in broken
        ]
        try:
            read(said)
        except ValidationError as error:
            faults += [
                {"type": one["type"], "loc": one["loc"], "input": one["input"], "ctx": one.get("ctx", {})}
                for one in error.errors(include_url=False)
            ]
        raise ValidationError.from_exception_data(cls.__name__, faults)
