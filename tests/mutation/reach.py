"""Which test reaches which line: what is run with a change there."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from tests.machine.environment import CHECKOUT

_MOST_SECONDS = 30  # as coverage makes them; without it they take less


class Reach(NamedTuple):
    """By module, the tests that reach each of its lines; and how long each test takes."""

    tests: dict[str, dict[int, frozenset[str]]]
    seconds: dict[str, float]

    def of(self, module: str, lines: Iterable[int], files: Iterable[str]) -> list[str]:
        """The tests that reach one of the lines, the quickest first.

        Behind them, of a line that is run when the module is imported, all that are in `files`, but
        for the slowest: first those that reach anything of the module, and then the others, since
        what the line makes may be used without that.
        """
        reached = self.tests.get(module, {})
        found = frozenset[str]().union(*(reached.get(line, ()) for line in lines))
        quickest = partial(sorted, key=lambda test: self.seconds.get(test, 0))
        chosen: list[str] = quickest(found - {""})
        if "" in found:
            about = {test for test in self.seconds if test.split("::")[0] in {*files}}
            of_module = frozenset[str]().union(*reached.values())
            seconds = 0.0
            for test in (*quickest(about & of_module - found), *quickest(about - of_module)):
                seconds += self.seconds[test]
                if seconds > _MOST_SECONDS:
                    break
                chosen.append(test)
        return chosen


def reach(modules: Sequence[str], words: Sequence[str]) -> Reach:
    """Run the tests that pytest finds by those words.  Doesn't return if one fails."""
    import coverage
    import hypothesis
    import pytest

    measured = coverage.Coverage(
        data_file=None, include=[str(CHECKOUT / one) for one in modules], config_file=False
    )

    class Told:
        seconds = dict[str, float]()

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
            measured.switch_context(item.nodeid)
            result = yield
            measured.switch_context("")
            return result

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration

    os.chdir(CHECKOUT)
    # A few examples reach what many do.
    hypothesis.settings.register_profile("reach", max_examples=10, database=None, deadline=None)
    told = Told()
    measured.start()
    options = ["-p", "no:cacheprovider", "--hypothesis-profile=reach", "--hypothesis-seed=0"]
    code = pytest.main([*options, *words], plugins=[told])
    measured.stop()
    if code != 0:
        raise SystemExit("a test fails without any change, so no change can be told by it")
    data = measured.get_data()
    tests: dict[str, dict[int, frozenset[str]]] = defaultdict(dict)
    for one in modules:
        for line, contexts in data.contexts_by_lineno(str(CHECKOUT / one)).items():
            tests[one][line] = frozenset(contexts)
    return Reach(dict(tests), told.seconds)
