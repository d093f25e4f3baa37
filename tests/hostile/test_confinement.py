"""What README says that is left to each of kagent's processes is what they have."""

from __future__ import annotations

from pathlib import Path

from tests.support import confinement
from tests.support.programs import Person

README = Path(__file__).parents[2] / "README.md"


def test_the_table_of_what_is_left(person: Person) -> None:
    """For a new role a line is missing there, or in the scene a way to bring such a process in."""
    with confinement.scene(person) as at:
        table = confinement.table([confinement.measure(role, at) for role in confinement.ROLES])
    told = "contrib/confinement writes it anew, as root"
    assert table in README.read_text(), f"not what stands in README.md; {told}:\n{table}"
