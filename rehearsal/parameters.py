"""A template's parameters: given values, defaults, constraints, and values kept in SSM.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/parameters-section-structure.html
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from rehearsal.intrinsics import TemplateError

_SSM = re.compile(r"AWS::SSM::Parameter::Value<(.+)>")
_KNOWN = re.compile(r"String|Number|CommaDelimitedList|List<.+>|AWS::\w+::\w+::\w+|AWS::SSM::Parameter::.+")


def decide(
    declared: Mapping[str, Mapping[str, Any]],
    given: Mapping[str, str],
    stored: Callable[[list[str]], Mapping[str, str]],
) -> tuple[dict[str, str], dict[str, Any]]:
    """The text of each parameter, and the value that Ref gives: SSM values fetched, lists split.

    `stored` fetches SSM parameters by name and leaves out those that do not exist.

    Raises:
        TemplateError: a value is missing, unknown, or breaks its constraints.
    """
    unknown = sorted(set(given) - set(declared))
    if unknown:
        raise TemplateError(f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    texts = {name: str(given.get(name, item.get("Default"))) for name, item in declared.items()
             if name in given or "Default" in item}  # fmt: skip
    missing = [name for name in declared if name not in texts]
    if missing:
        raise TemplateError(f"Parameters: [{', '.join(missing)}] must have values")
    for name, item in declared.items():
        _check(name, item, texts[name])
    fetched = _fetch(declared, texts, stored)
    values: dict[str, Any] = {}
    for name, item in declared.items():
        kind = str(item["Type"])
        found = _SSM.fullmatch(kind)
        text = fetched[texts[name]] if found else texts[name]
        kind = found[1] if found else kind
        as_list = kind == "CommaDelimitedList" or kind.startswith("List<")
        values[name] = [part.strip() for part in text.split(",")] if as_list else text
    return texts, values


def _fetch(
    declared: Mapping[str, Mapping[str, Any]],
    texts: Mapping[str, str],
    stored: Callable[[list[str]], Mapping[str, str]],
) -> Mapping[str, str]:
    names = sorted({texts[name] for name, item in declared.items() if _SSM.fullmatch(str(item["Type"]))})
    if not names:
        return {}
    fetched = stored(names)
    missing = [name for name in names if name not in fetched]
    if missing:
        raise TemplateError(f"Unable to fetch parameters [{','.join(missing)}] from parameter store for this account.")
    return fetched


def _check(name: str, item: Mapping[str, Any], text: str) -> None:
    kind = str(item.get("Type"))
    if not _KNOWN.fullmatch(kind):
        raise TemplateError(f"Template format error: Unrecognized parameter type: {kind}")
    _demand("AllowedValues" not in item or text in map(str, item["AllowedValues"]), name, item,
            "must be one of AllowedValues")  # fmt: skip
    pattern = item.get("AllowedPattern")
    _demand(pattern is None or bool(re.fullmatch(pattern, text)), name, item, f"must match pattern {pattern}")
    shortest, longest = int(item.get("MinLength", 0)), int(item.get("MaxLength", len(text)))
    _demand(len(text) >= shortest, name, item, f"must contain at least {shortest} characters")
    _demand(len(text) <= longest, name, item, f"must contain at most {longest} characters")
    if kind == "Number":
        number = _number(text)
        _demand(number is not None, name, item, "must be a number")
        assert number is not None
        least, most = float(item.get("MinValue", number)), float(item.get("MaxValue", number))
        _demand(number >= least, name, item, f"must be a number not less than {item.get('MinValue')}")
        _demand(number <= most, name, item, f"must be a number not greater than {item.get('MaxValue')}")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _demand(holds: bool, name: str, item: Mapping[str, Any], otherwise: str) -> None:
    if holds:
        return
    if "ConstraintDescription" in item:
        raise TemplateError(f"Parameter {name} failed to satisfy constraint: {item['ConstraintDescription']}")
    raise TemplateError(f"Parameter '{name}' {otherwise}")
