"""Records: values that don't change, declared field by field."""

from __future__ import annotations

from unittest import mock

import pytest

from kagent.custody.identity import Custody, Identity
from kagent.protocol.messages import (
    AddSmartcardKey,
    AddSmartcardKeyConstrained,
    Extension,
    Lock,
    RemoveSmartcardKey,
    Unlock,
)
from kagent.protocol.wire import BOOLEAN, STRING, TEXT, UINT32, ProtocolError, Record, field


class Base(Record):
    blob: bytes = field(STRING)


class Secret(Base, repr=False):
    pin: str = field(TEXT)


class Derived(Secret):
    number: int = field(UINT32, default=7)
    known: bool = field(BOOLEAN, default=False)

    @property
    def size(self) -> int:
        return len(self.blob)


VALUE = Derived(b"blob", "1234", 7, True)


def test_a_base_has_its_fields_first() -> None:
    assert VALUE.write() == b"\0\0\0\4blob" + b"\0\0\0\0041234" + b"\0\0\0\7" + b"\1"
    assert Derived.parse(VALUE.write()) == VALUE
    assert Derived.__match_args__ == ("blob", "pin", "number", "known")
    assert not hasattr(Derived, "blob")  # the class has no values


def test_by_position_and_by_name() -> None:
    assert Derived(b"blob", known=True, pin="1234") == VALUE
    assert Derived(b"blob", "1234").known is False
    assert VALUE.replace(known=False) == Derived(b"blob", "1234")
    assert VALUE.size == 4


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((), {}),
        ((b"",), {}),
        ((b"", "", 1, True, 2), {}),
        ((b"", ""), {"pin": ""}),
        ((b"", "", 1, True), {"pin": ""}),
        ((b"", "", 1, True), {"other": ""}),
        ((b"", ""), {"other": ""}),
        ((b"",), {"number": 1}),
    ],
)
def test_neither_too_few_values_nor_too_many(
    values: tuple[object, ...], named: dict[str, object]
) -> None:
    with pytest.raises(TypeError, match="Derived"):
        Derived(*values, **named)
    with pytest.raises(TypeError, match="Derived"):
        VALUE.replace(other=1)


def test_it_does_not_change() -> None:
    with pytest.raises(AttributeError):
        VALUE.number = 8
    with pytest.raises(AttributeError):
        VALUE.other = 8
    with pytest.raises(AttributeError):
        del VALUE.number
    assert VALUE.number == 7


def test_equal_are_values_of_one_class() -> None:
    same = Derived.parse(VALUE.write())
    assert same == VALUE
    assert hash(same) == hash(VALUE)
    assert VALUE.replace(number=8) != VALUE
    assert RemoveSmartcardKey("p", "1") != AddSmartcardKey("p", "1")
    assert Base(b"") != b""
    assert Base(b"") == mock.ANY  # what is compared with it may know better


def test_only_a_whole_one_is_parsed() -> None:
    for damaged in (VALUE.write()[:-1], VALUE.write() + b"\0", b""):
        with pytest.raises(ProtocolError):
            Derived.parse(damaged)


def test_secrets_are_not_shown() -> None:
    assert repr(Extension("name", b"1")) == "Extension(name='name', contents=b'1')"
    for secret in (
        *(Secret(b"blob", "1234"), VALUE, Lock(b"1234"), Unlock(b"1234")),
        *(AddSmartcardKey("p", "1234"), AddSmartcardKeyConstrained("p", "1234", ())),
        RemoveSmartcardKey("p", "1234"),
    ):
        assert "1234" not in repr(secret)
        assert "blob" not in repr(secret)


def test_a_pattern_takes_it_apart() -> None:
    match VALUE:
        case Derived(blob, pin, known=True):
            assert (blob, pin) == (b"blob", "1234")
        case _:
            pytest.fail("no match")


def test_long_records_are_not_kept() -> None:
    """Who can write to the anchor could have a front keep gigabytes of them."""
    short, long = (Identity(b"blob", "x" * size, Custody.KERNEL).write() for size in (10, 10**6))
    assert Identity.parse(short) is Identity.parse(short)
    assert Identity.parse(long) is not Identity.parse(long)
