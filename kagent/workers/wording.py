"""The question whether a key may be used, in words; and where a request comes from.

For the lookout: it reads what is known of processes and hosts.
"""

from __future__ import annotations

from ..jobs.questions import Origin, Purpose, Question, Who, Worded
from ..openssh.hostnames import Destination, HostNames
from ..text import shown
from .processes import Process, asker_of, lineage

_MOST_HOPS = 3


def origin(question: Who) -> Origin:
    """Where a request comes from."""
    processes = lineage(question.client)
    hosts = HostNames(destination(processes)) if question.host_keys else None
    names = tuple(hosts.name(key) for key in question.host_keys) if hosts else ()
    return Origin(asker_of(question.client.pid, processes), names)


def worded(question: Question) -> Worded:
    """The whole text.  Its first two lines are ssh-agent's, since there are scripts that read them.

    Nothing in it that others chose can make or hide a line.
    """
    comment = shown(question.comment, 80)
    heading = f"Allow use of key {comment}?\nKey fingerprint {question.fingerprint}."
    told = "\n".join(details(question))
    return Worded(f"{heading}\n{told}", told)


def details(question: Question) -> list[str]:
    """What is known of the request, in lines: what it is for, where it comes from, who asks."""
    processes = lineage(question.client)
    told = destination(processes)
    hosts = HostNames(told)
    bindings = list(question.bindings)
    target = bindings.pop() if bindings and not bindings[-1].forwarded else None
    way = [hosts.name(binding.host_key) for binding in bindings]
    if target:
        where = hosts.name(target.host_key)
    elif told and not way:
        where = f"an unproved host; ssh was told to go to {shown(told.host)}"
    else:
        where = "a host that ssh has not named"
    lines = [_purpose(question, where)]
    if way:
        lines.append(_forwarded(way))
    asker = asker_of(question.client.pid, processes)
    lines.append(f"{'Brought' if way else 'Asked'} by {asker}.")
    return lines


def destination(processes: list[Process]) -> Destination | None:
    """Where the nearest of them was told to go, if it is an ssh."""
    if processes and processes[0].program == "ssh":
        return Destination.of(processes[0].command)
    return None


def _purpose(question: Question, where: str) -> str:
    name = shown(question.name)
    match question.purpose:
        case Purpose.LOGIN:
            return f'Login as "{name}" on {where}.'
        case Purpose.SSHSIG:
            return f'WARNING: not an ssh login, but an ssh signature for "{name}".'
        case Purpose.UNKNOWN:
            return "WARNING: not an ssh login, and what is to be signed is of no known kind."


def _forwarded(way: list[str]) -> str:
    *before, origin = way
    if not before:
        return f"FORWARDED: the request comes from {origin}."
    if len(before) > _MOST_HOPS:
        before[1:-1] = ["…"]
    return f"FORWARDED: the request comes from {origin}, through {', '.join(before)}."
