"""What contrib/SECURITY.md tells of kagent's processes is what the code makes of them."""

from __future__ import annotations

from pathlib import Path

from kagent.jobs import roles

PAGE = Path(__file__).parent.parent.parent / "contrib/SECURITY.md"


def test_the_table_of_processes() -> None:
    rows = [roles.row(role) for role in (roles.FOREGROUND, roles.KEEPER, *roles.CHILDREN)]
    assert "\n".join(rows) in PAGE.read_text()


def test_who_reads_much_has_little() -> None:
    """Only the front reads what clients send and possesses keys; nobody can open a sealed one, but
    who reads nothing else."""
    possess = {role.title for role in roles.CHILDREN if "sealed" in role.possesses}
    assert possess == {"parent of the sign workers", "sign worker", "seal worker"}
    unconfined = {role for role in roles.CHILDREN if not role.profile}
    # The first two confine themselves, to descriptors that they have by then.
    assert unconfined == {
        roles.FRONT,
        roles.SIGNERS,
        roles.ASK,
        roles.DEVICE,
        roles.NOTIFY,
        roles.SOURCE,
    }
    reading = {roles.RELAY, roles.TOKEN}
    later = {*reading, roles.FETCH, roles.LEARN, roles.CERTIFY}
    assert {role for role in roles.CHILDREN if role.confined_later} == later
    starting = {roles.ASK, roles.DEVICE, roles.NOTIFY, roles.CERTIFY, roles.SOURCE}
    without = (roles.REFUSE, roles.LOOKOUT, roles.BIND, roles.LEARN, *starting, *reading)
    assert not any(role.possesses for role in without)
