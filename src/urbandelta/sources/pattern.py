"""File-name patterns with named fields, such as `*_{date:%Y%m%dT%H%M%SZ}_{platform}_{band}.tif`.

Everything outside braces is literal text, except `*` (any run of characters of one name). Fields:

- `{date:FORMAT}`: strptime directives %Y %m %d %j %H %M %S %f %b %y %z; UTC unless %z is there
- `{band}`, `{platform}`, `{orbit}`, `{track}`, `{baseline}`, `{scene}`: letters and digits; or one of a list, as in
  `{band:VV|VH}`
- `{*}`: the same as `*`

A pattern without `/` is matched with file names in any folder below the source, one with `/` with the path relative
to the source.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from urbandelta.errors import ConfigError, SourceError

FIELDS = ("band", "platform", "orbit", "track", "baseline", "scene")
_ANY = r"[^/]*?"
_TOKEN = re.compile(r"\{([^{}]*)\}|(\*)|([{}])")
_DIRECTIVES = {
    "Y": r"\d{4}",
    "m": r"\d{2}",
    "d": r"\d{2}",
    "j": r"\d{3}",
    "H": r"\d{2}",
    "M": r"\d{2}",
    "S": r"\d{2}",
    "f": r"\d{1,6}",
    "b": r"[A-Za-z]{3}",
    "y": r"\d{2}",
    "z": r"(?:Z|[+-]\d{2}:?\d{2})",
    "%": "%",
}


@dataclass(frozen=True)
class Match:
    """What a name says: its fields, and its time if it has a date."""

    fields: dict[str, str]
    time: np.datetime64 | None


@dataclass(frozen=True)
class NamePattern:
    """A compiled pattern; make one with `compile_pattern`."""

    text: str
    expression: re.Pattern[str]
    date_format: str | None

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields, `date` among them."""
        return tuple(self.expression.groupindex)

    def match(self, relative_path: str) -> Match | None:
        """Fields of a path (relative to the source, with `/`), or None if it does not match.

        Raises
        ------
        SourceError
            If the date field matches digits that are no date.
        """
        subject = relative_path if "/" in self.text else relative_path.rpartition("/")[2]
        found = self.expression.fullmatch(subject)
        if found is None:
            return None
        fields = found.groupdict()
        date = fields.pop("date", None)
        time = None if date is None else _parse_date(date, str(self.date_format), relative_path)
        return Match(fields, time)


def compile_pattern(text: str) -> NamePattern:
    """Translate a pattern into an expression.

    Raises
    ------
    ConfigError
        If a field is unknown or named twice, a brace is left open, or a date has no format or an unknown directive.
    """
    parts: list[str] = []
    date_format = None
    position = 0
    seen: set[str] = set()
    for token in _TOKEN.finditer(text):
        parts.append(re.escape(text[position : token.start()]))
        position = token.end()
        field, star, stray = token.groups()
        if stray:
            raise ConfigError(f"pattern {text!r}: unmatched {stray!r} at character {token.start() + 1}")
        if star or field == "*":
            parts.append(_ANY)
            continue
        name, _, spec = field.partition(":")
        if name in seen:
            raise ConfigError(f"pattern {text!r}: field {{{name}}} appears twice; write {{*}} for the second")
        seen.add(name)
        if name == "date":
            date_format = spec
        parts.append(f"(?P<{name}>{_field_expression(name, spec, text)})")
    parts.append(re.escape(text[position:]))
    return NamePattern(text, re.compile("".join(parts)), date_format)


def parse_time(text: str, *, where: str) -> np.datetime64:
    """A moment as people write it: ISO 8601 with a time zone, or a bare date (`2018-03-09`, `20180309`) for 00:00 UTC.

    Raises
    ------
    SourceError
        If it is no date, or has a time of day without a time zone.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise SourceError(
            f"{where}: {text.strip()!r} is not a date; write 2018-03-09 or 2018-03-09T10:30:00Z"
        ) from error
    bare_date = re.fullmatch(r"\d{4}-?\d{2}-?\d{2}", text.strip()) is not None
    if moment.tzinfo is None and not bare_date:
        raise SourceError(f"{where}: {text.strip()!r} has no time zone; add one, such as Z for UTC")
    return to_utc(moment)


def to_utc(moment: datetime) -> np.datetime64:
    """UTC `datetime64[ns]`; a moment without time zone is taken as UTC."""
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(moment, "ns")


def _field_expression(name: str, spec: str, text: str) -> str:
    if name == "date":
        return _date_expression(spec, text)
    if name not in FIELDS:
        raise ConfigError(f"pattern {text!r}: unknown field {{{name}}}; known: date:FORMAT, {', '.join(FIELDS)}, *")
    if not spec:
        return "[A-Za-z0-9]+"
    return "|".join(re.escape(choice) for choice in sorted(spec.split("|"), key=len, reverse=True))


def _date_expression(spec: str, text: str) -> str:
    if "%Y" not in spec and "%y" not in spec:
        raise ConfigError(f"pattern {text!r}: {{date}} needs a format with a year, such as {{date:%Y%m%dT%H%M%S}}")
    parts: list[str] = []
    position = 0
    for directive in re.finditer(r"%(.?)", spec):
        if directive[1] not in _DIRECTIVES:
            raise ConfigError(f"pattern {text!r}: unknown directive %{directive[1]}; known: %{' %'.join(_DIRECTIVES)}")
        parts.append(re.escape(spec[position : directive.start()]))
        parts.append(_DIRECTIVES[directive[1]])
        position = directive.end()
    return "".join(parts) + re.escape(spec[position:])


def _parse_date(digits: str, date_format: str, path: str) -> np.datetime64:
    try:
        return to_utc(datetime.strptime(digits, date_format))
    except ValueError as error:
        raise SourceError(f"{path}: {digits!r} is not a date of the form {date_format}; check the pattern") from error
