"""What contrib/SECURITY.md says that is left to each of kagent's processes is what they have."""

from __future__ import annotations

from pathlib import Path

from tests.support import confinement
from tests.support.programs import Person

PAGE = Path(__file__).parents[2] / "contrib/SECURITY.md"


def test_the_table_of_what_is_left(person: Person) -> None:
    """For a new role a line is missing there, or in the scene a way to bring such a process in."""
    with confinement.scene(person) as at:
        table = confinement.table([confinement.measure(role, at) for role in confinement.ROLES])
    told = "contrib/confinement writes it anew, as root"
    assert table in PAGE.read_text(), f"not what stands in {PAGE.name}; {told}:\n{table}"
