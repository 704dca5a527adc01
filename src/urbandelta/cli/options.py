"""Options that several commands share, as dataclasses: a command takes one object instead of thirty parameters."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, get_type_hints

P = ParamSpec("P")
R = TypeVar("R")


def takes_options(function: Callable[P, R]) -> Callable[..., R]:
    """Replace each parameter of a command that is annotated with a dataclass by that dataclass' fields.

    Field annotations carry the `typer.Option`; the command then receives the filled dataclass.
    """
    hints = get_type_hints(function, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint) and isinstance(hint, type)}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in groups:
            parameters += _field_parameters(groups[parameter.name])
        else:
            parameters.append(parameter.replace(annotation=hints[parameter.name]))
    parameters.sort(key=lambda parameter: parameter.kind)

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> R:
        for name, group in groups.items():
            kwargs[name] = group(**{item.name: kwargs.pop(item.name) for item in dataclasses.fields(group)})
        return function(*args, **kwargs)

    # Typer reads both the signature and the annotations.
    command.__dict__["__signature__"] = inspect.Signature(parameters)
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _field_parameters(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            item.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if item.default is dataclasses.MISSING else item.default,
            annotation=hints[item.name],
        )
        for item in dataclasses.fields(group)
    ]
