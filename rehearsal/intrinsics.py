"""CloudFormation's intrinsic functions and pseudo parameters, resolved against one stack.

https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/intrinsic-function-reference.html
"""

import base64
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_SUB = re.compile(r"\$\{(!?)([^}]*)\}")
_NO_VALUE = object()
"""What AWS::NoValue resolves to: the key or the list item that holds it disappears."""


class TemplateError(ValueError):
    """What CloudFormation answers as ValidationError, in its words."""


@dataclass(kw_only=True)
class Scope:
    """Everything that a template's functions may ask for."""

    mappings: Mapping[str, Any]
    conditions: Mapping[str, Any]
    parameters: Mapping[str, Any]
    """Resolved values: text, or a list of text for list types."""
    pseudo: Mapping[str, Any]
    """AWS::Region, AWS::StackName and the like."""
    zones: Callable[[str], list[str]]
    """Names of a region's availability zones."""
    imports: Callable[[str], str]
    """Value of an export. Raises: TemplateError where there is none."""
    reference: Callable[[str], Any] | None = None
    """Physical id of a resource; None while resources do not exist yet (conditions, parameters)."""
    attribute: Callable[[str, str], Any] | None = None
    """One attribute of a resource. Raises: TemplateError naming type and attribute."""
    _decided: dict[str, bool] = field(default_factory=dict)
    _deciding: set[str] = field(default_factory=set)

    def condition(self, name: str) -> bool:
        """Whether the condition called `name` holds."""
        if name not in self.conditions:
            raise TemplateError(f"Template format error: Unresolved condition dependency {name}")
        if name in self._deciding:
            raise TemplateError(f"Template format error: Circular dependency in condition {name}")
        if name not in self._decided:
            self._deciding.add(name)
            self._decided[name] = _truth(self.conditions[name], self)
            self._deciding.discard(name)
        return self._decided[name]

    def resolve(self, value: Any) -> Any:
        """`value` with every function replaced by its result."""
        resolved = _resolve(value, self)
        return None if resolved is _NO_VALUE else resolved


def prune(value: Any, scope: Scope) -> Any:
    """`value` with each Fn::If replaced by the branch that its condition takes; nothing else is resolved."""
    if isinstance(value, Mapping):
        if set(value) == {"Fn::If"}:
            return prune(_branch(value["Fn::If"], scope), scope)
        return {key: prune(inner, scope) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [prune(inner, scope) for inner in value]
    return value


def references(value: Any) -> set[str]:
    """Names that `value` refers to by Ref, Fn::GetAtt or Fn::Sub, without pseudo parameters."""
    found: set[str] = set()
    if isinstance(value, Mapping):
        if len(value) == 1:
            ((key, inner),) = value.items()
            if key == "Ref" and isinstance(inner, str):
                found.add(inner)
            elif key == "Fn::GetAtt":
                found.add(_attribute_of(inner)[0])
            elif key == "Fn::Sub":
                text, given = (inner, {}) if isinstance(inner, str) else (inner[0], inner[1])
                names = {
                    name.split(".")[0] for escaped, name in _SUB.findall(text) if not escaped and name not in given
                }
                found |= names
        for inner in value.values():
            found |= references(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            found |= references(inner)
    return {name for name in found if not name.startswith("AWS::")}


def _resolve(value: Any, scope: Scope) -> Any:
    if isinstance(value, Mapping):
        if len(value) == 1:
            ((key, inner),) = value.items()
            if key in FUNCTIONS:
                return FUNCTIONS[key](inner, scope)
        pairs = ((key, _resolve(inner, scope)) for key, inner in value.items())
        return {key: inner for key, inner in pairs if inner is not _NO_VALUE}
    if isinstance(value, (list, tuple)):
        return [inner for inner in (_resolve(item, scope) for item in value) if inner is not _NO_VALUE]
    return value


def _ref(name: Any, scope: Scope) -> Any:
    if name == "AWS::NoValue":
        return _NO_VALUE
    if name in scope.pseudo:
        return scope.pseudo[name]
    if name in scope.parameters:
        return scope.parameters[name]
    if scope.reference is None or str(name).startswith("AWS::"):
        raise TemplateError(f"Template error: Ref to {name} is not possible here")
    return scope.reference(name)


def _attribute_of(value: Any) -> tuple[str, str]:
    name, attribute = value.split(".", 1) if isinstance(value, str) else value
    return name, attribute


def _get_att(value: Any, scope: Scope) -> Any:
    name, attribute = _attribute_of(value)
    if scope.attribute is None:
        raise TemplateError(f"Template error: Fn::GetAtt of {name} is not possible here")
    return scope.attribute(name, _text(attribute, scope))


def _sub(value: Any, scope: Scope) -> str:
    text, given = (value, {}) if isinstance(value, str) else (value[0], value[1])

    def replaced(match: re.Match[str]) -> str:
        escaped, name = match.groups()
        if escaped:
            return f"${{{name}}}"
        if name in given:
            return _text(given[name], scope)
        found = _get_att(name, scope) if "." in name else _ref(name, scope)
        if isinstance(found, (list, dict)):
            raise TemplateError(f"Template error: Fn::Sub: {name} is not text")
        return str(found)

    return _SUB.sub(replaced, text)


def _join(value: Any, scope: Scope) -> str:
    separator, items = value
    resolved = _resolve(items, scope)
    if not isinstance(resolved, list) or any(isinstance(item, (list, dict)) for item in resolved):
        raise TemplateError("Template error: every Fn::Join object requires two parameters, (1) a string delimiter "
                            "and (2) a list of strings to be joined or a function that returns a list of strings "
                            "(such as Fn::GetAZs) to be joined.")  # fmt: skip
    return _text(separator, scope).join(_plain(item) for item in resolved)


def _select(value: Any, scope: Scope) -> Any:
    index, items = value
    resolved, place = _resolve(items, scope), int(_resolve(index, scope))
    if not isinstance(resolved, list) or not 0 <= place < len(resolved):
        raise TemplateError(f"Template error: Fn::Select cannot select nonexistent value at index {place}")
    return resolved[place]


def _split(value: Any, scope: Scope) -> list[str]:
    separator, text = value
    return _text(text, scope).split(separator)


def _get_azs(value: Any, scope: Scope) -> list[str]:
    return scope.zones(_text(value, scope) or str(scope.pseudo["AWS::Region"]))


def _import_value(value: Any, scope: Scope) -> str:
    return scope.imports(_text(value, scope))


def _find_in_map(value: Any, scope: Scope) -> Any:
    name, first, second = (_text(item, scope) for item in value)
    try:
        return scope.mappings[name][first][second]
    except KeyError:
        raise TemplateError(f"Template error: Unable to get mapping for {name}::{first}::{second}") from None


def _base64(value: Any, scope: Scope) -> str:
    return base64.b64encode(_text(value, scope).encode()).decode()


def _cidr(value: Any, scope: Scope) -> list[str]:
    block, count, *bits = (_resolve(item, scope) for item in value)
    network = ipaddress.ip_network(block)
    prefix = network.max_prefixlen - int(bits[0]) if bits else 24
    blocks = network.subnets(new_prefix=prefix)
    return [str(next(blocks)) for _ in range(int(count))]


def _branch(value: Any, scope: Scope) -> Any:
    name, then, otherwise = value
    return then if scope.condition(name) else otherwise


def _if(value: Any, scope: Scope) -> Any:
    return _resolve(_branch(value, scope), scope)


def _truth(value: Any, scope: Scope) -> bool:
    if isinstance(value, Mapping) and set(value) == {"Condition"}:
        return scope.condition(value["Condition"])
    resolved = _resolve(value, scope)
    if not isinstance(resolved, bool):
        raise TemplateError("Template format error: Conditions must evaluate to true or false")
    return resolved


def _equals(value: Any, scope: Scope) -> bool:
    first, second = (_resolve(item, scope) for item in value)
    return _plain(first) == _plain(second)


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(value: Any, scope: Scope) -> str:
    resolved = _resolve(value, scope)
    if isinstance(resolved, (list, dict)) or resolved is _NO_VALUE:
        raise TemplateError(f"Template error: {value!r} must be text")
    return _plain(resolved)


FUNCTIONS: Mapping[str, Callable[[Any, Scope], Any]] = {
    "Ref": _ref,
    "Fn::GetAtt": _get_att,
    "Fn::Sub": _sub,
    "Fn::Join": _join,
    "Fn::Select": _select,
    "Fn::Split": _split,
    "Fn::GetAZs": _get_azs,
    "Fn::ImportValue": _import_value,
    "Fn::FindInMap": _find_in_map,
    "Fn::Base64": _base64,
    "Fn::Cidr": _cidr,
    "Fn::If": _if,
    "Fn::Equals": _equals,
    "Fn::And": lambda value, scope: all(_truth(item, scope) for item in value),
    "Fn::Or": lambda value, scope: any(_truth(item, scope) for item in value),
    "Fn::Not": lambda value, scope: not _truth(value[0], scope),
}
