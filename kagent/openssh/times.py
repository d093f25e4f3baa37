"""Spans of time as OpenSSH's programs read and write them (sshd_config(5), TIME FORMATS), and dates
for people to read.
"""

from __future__ import annotations

import re
import time

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SPAN = re.compile(r"([0-9.]+)([smhdw])|([0-9.]+)$", re.IGNORECASE)
_DECIMAL = re.compile(r"[0-9]*\.[0-9]+")
LONGEST = 2**31 - 1
_YEAR_10000 = 253402300800


def seconds(text: str) -> int:
    """'90', '1h30m' or '1w' in seconds; fractions, of seconds only, are dropped.

    Raises ValueError.
    """
    total = 0.0
    position = 0
    seen: list[str] = []
    while position < len(text) or not text:
        part = _SPAN.match(text, position)
        if part is None:
            raise ValueError("not a span of time")
        number, unit = part[1] or part[3], (part[2] or "s").lower()
        if "." in number and (unit != "s" or not _DECIMAL.fullmatch(number)):
            raise ValueError("not a whole number, nor one of seconds")
        seen.append(unit)
        total += float(number) * _UNITS[unit]
        position = part.end()
    if seen.count("s") > 1 or total > LONGEST:
        raise ValueError("seconds given twice, or too long a time")
    return int(total)


def timeframe(span: int) -> str:
    """Seconds as OpenSSH tells them: '01:30:00', '1d02h03m' or '02w3d04h'."""
    minutes, second = divmod(span, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    week, day = divmod(days, 7)
    if week:
        return f"{week:02}w{day}d{hour:02}h"
    if day:
        return f"{day}d{hour:02}h{minute:02}m"
    return f"{hour:02}:{minute:02}:{second:02}"


def date(moment: int, form: str, *, local: bool = False) -> str:
    """Seconds since 1970 in strftime(3)'s `form`, as UTC or as `local` time.

    Certificates and agents may name any number of 64 bits, and clocks end before that.
    """
    if moment >= _YEAR_10000:
        return "beyond the year 9999"
    return time.strftime(form, time.localtime(moment) if local else time.gmtime(moment))
