"""What of a client's wishes an agent can keep."""

from __future__ import annotations

import pytest

from kagent.custody.identity import Custody
from kagent.jobs.terms import NotKept, Terms
from kagent.protocol.constraints import (
    AssociatedCertificates,
    Confirm,
    ConfirmForwarded,
    Constraint,
    IdleLifetime,
    Lifetime,
    RequireCustody,
    RestrictDestination,
    SkProvider,
)

KEPT = (Lifetime(1), IdleLifetime(1), Confirm(), ConfirmForwarded(), RestrictDestination(()))
PROVIDER, CERTIFICATES = SkProvider("internal"), AssociatedCertificates(False, ())


@pytest.mark.parametrize(
    ("asked", "of_token", "kept"),
    [
        ((), False, ()),
        (KEPT, False, KEPT),
        (KEPT, True, KEPT),
        ((RequireCustody("sealed"), Confirm()), False, (Confirm(),)),
        ((PROVIDER, Confirm()), False, (Confirm(),)),
        ((CERTIFICATES, Confirm()), True, (Confirm(),)),
        ((PROVIDER,), True, "SkProvider is not for this type of key"),
        ((CERTIFICATES,), False, "AssociatedCertificates is not for this type of key"),
        ((Lifetime(0),), False, "no seconds"),
        ((Confirm(), IdleLifetime(0)), False, "no seconds"),
    ],
)
def test_all_that_is_asked_is_kept_or_refused(
    asked: tuple[Constraint, ...], of_token: bool, kept: tuple[Constraint, ...] | str
) -> None:
    if isinstance(kept, str):
        with pytest.raises(NotKept, match=kept):
            Terms().constraints(asked, of_token=of_token)
    elif of_token:
        assert Terms().constraints(asked, of_token=True) == kept
    else:
        assert Terms().constraints(asked) == kept


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ((), (Lifetime(60),)),
        ((Confirm(),), (Lifetime(60), Confirm())),
        ((IdleLifetime(5),), (Lifetime(60), IdleLifetime(5))),
        ((Confirm(), Lifetime(90)), (Confirm(), Lifetime(90))),
    ],
)
def test_a_lifetime_is_for_keys_that_come_without_one(
    asked: tuple[Constraint, ...], kept: tuple[Constraint, ...]
) -> None:
    assert Terms(lifetime=60).constraints(asked) == kept


@pytest.mark.parametrize(
    ("told", "asked", "only"),
    [
        (None, None, None),
        (None, "kernel", Custody.KERNEL),
        (None, "sealed", Custody.SEALED),
        (Custody.KERNEL, None, Custody.KERNEL),
        (Custody.KERNEL, "kernel", Custody.KERNEL),
        (Custody.SEALED, "kernel", "--custody sealed"),
    ],
)
def test_the_only_custody(told: Custody | None, asked: str | None, only: Custody | str) -> None:
    wishes = (Confirm(), *([RequireCustody(asked)] if asked else []))
    if isinstance(only, str) and not isinstance(only, Custody):
        with pytest.raises(NotKept, match=only):
            Terms(custody=told).custody_for(wishes)
    else:
        assert Terms(custody=told).custody_for(wishes) is only
