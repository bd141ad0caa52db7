"""Column types: enumerations by value, and contract models as JSON text.

All times in the database are Unix seconds (UTC), all sizes bytes.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import BigInteger, Enum, ForeignKey, MetaData, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator


class Record(DeclarativeBase):
    """A row of the scheduler's database."""

    type_annotation_map = {int: BigInteger}  # noqa: RUF012  SQLAlchemy's signature; sizes and fences need 64 bits
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Json(TypeDecorator[Any]):
    """A value of a contract type, kept as the JSON that pydantic writes for it, and validated when read."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.kind = repr(kind)  # SQLAlchemy tells cached statements apart by this
        self._type = kind

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Made when first wanted: that takes a while, and most commands want few."""
        return TypeAdapter(self._type)

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002  SQLAlchemy's signature
        return None if value is None else self.adapter.dump_json(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002  as above
        return None if value is None else self.adapter.validate_json(value)


def choice(kind: type[StrEnum]) -> Enum:
    """A column for an enumeration, stored as its value so that the database reads well."""
    return Enum(
        kind,
        native_enum=False,
        length=32,
        create_constraint=False,
        values_callable=lambda members: [member.value for member in members],
    )


def reference(column: str, *, owned: bool = False) -> ForeignKey:
    """A reference to another row; one that is owned goes when that row goes.

    Checked when a transaction is committed, so that rows may be written in any order.
    """
    return ForeignKey(column, ondelete="CASCADE" if owned else None, deferrable=True, initially="DEFERRED")
