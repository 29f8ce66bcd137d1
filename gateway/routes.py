"""Which operation a method and path mean: templates of google.api.http, matched in a tree of path segments.

    /v1/{name=estates/*/repairs/*}:dispatch
       segments  v1 estates * repairs *      `*` takes one segment that is not empty
       variable  name = segments 1 to 5
       verb      dispatch                    what follows the last colon of the last segment

A request is looked up segment by segment, literals before wildcards, so its cost does not grow with the number of routes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import unquote_to_bytes

from gateway.problems import MethodNotAllowed
from services.chassis.errors import InvalidInput, NotFound, Violation

Target = TypeVar("Target")

_VARIABLE = re.compile(r"\{([a-z_0-9.]+)(?:=([^{}]+))?\}")
_LITERAL = re.compile(r"[A-Za-z0-9._~-]+|\*")


@dataclass(frozen=True, slots=True)
class Variable:
    """Segments `start` up to `stop` of a path, bound to a field (dotted path) of the request."""

    field: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Template:
    text: str
    segments: tuple[str, ...]
    variables: tuple[Variable, ...]
    verb: str

    @classmethod
    def parse(cls, text: str) -> Template:
        """Raises ValueError on a template that is not of the supported grammar (`**` is not)."""
        variables: list[Variable] = []
        segments: list[str] = []
        path, verb = text, ""
        if (colon := text.rfind(":")) > max(text.rfind("}"), text.rfind("/")):
            path, verb = text[:colon], text[colon + 1 :]
        # Slashes inside a variable separate segments too, so the variables are taken out first.
        rest = path.lstrip("/")
        while rest:
            if match := _VARIABLE.match(rest):
                parts = (match[2] or "*").split("/")
                variables.append(Variable(match[1], len(segments), len(segments) + len(parts)))
                rest = rest[match.end() :]
            else:
                head = rest.partition("/")[0]
                parts, rest = [head], rest[len(head) :]
            segments += parts
            if rest and not rest.startswith("/"):
                raise ValueError(f"cannot read the route template {text!r}")
            rest = rest[1:]
        if not text.startswith("/") or not all(_LITERAL.fullmatch(segment) for segment in segments):
            raise ValueError(f"cannot read the route template {text!r}")
        return cls(text, tuple(segments), tuple(variables), verb)


@dataclass(slots=True)
class _Node(Generic[Target]):
    literals: dict[str, _Node[Target]] = field(default_factory=dict)
    wildcard: _Node[Target] | None = None
    ends: dict[str, dict[str, Target]] = field(default_factory=dict)  # verb → method → target


class Router(Generic[Target]):
    """Routes of one application."""

    def __init__(self) -> None:
        self._root: _Node[Target] = _Node()

    def add(self, method: str, template: Template, target: Target) -> None:
        """Raises ValueError when the same method and path are taken already."""
        node = self._root
        for segment in template.segments:
            if segment == "*":
                node.wildcard = node.wildcard or _Node()
                node = node.wildcard
            else:
                node = node.literals.setdefault(segment, _Node())
        if method in (methods := node.ends.setdefault(template.verb, {})):
            raise ValueError(f"{method} {template.text} is routed twice")
        methods[method] = target

    def find(self, method: str, path: str) -> tuple[Target, list[str]]:
        """The target and the decoded segments of `path` (as sent, percent-encoded). HEAD finds what GET does.

        Raises NotFound, MethodNotAllowed with the methods there are, InvalidInput on a path that is not UTF-8.
        """
        methods, segments = self._methods(path)
        target = methods.get("GET" if method == "HEAD" else method)
        if target is None:
            raise MethodNotAllowed(allowed(methods))
        return target, segments

    def methods(self, path: str) -> list[str]:
        """Methods of a path, for OPTIONS. Raises NotFound."""
        return allowed(self._methods(path)[0])

    def _methods(self, path: str) -> tuple[dict[str, Target], list[str]]:
        segments = [] if path == "/" else path.split("/")[1:]
        verb = ""
        if segments and ":" in segments[-1]:
            segments[-1], _, verb = segments[-1].rpartition(":")
        if "%" in path:
            segments = [_decoded(segment) for segment in segments]
        methods = _walk(self._root, segments, 0, verb)
        if methods is None:
            raise NotFound("there is nothing at this address", reason="ROUTE_NOT_FOUND")
        return methods, segments


def allowed(methods: dict[str, Any]) -> list[str]:
    return sorted({*methods, "OPTIONS", *(["HEAD"] if "GET" in methods else [])})


def _walk(node: _Node[Target], segments: list[str], at: int, verb: str) -> dict[str, Target] | None:
    if at == len(segments):
        return node.ends.get(verb)
    segment = segments[at]
    child = node.literals.get(segment)
    if child is not None and (found := _walk(child, segments, at + 1, verb)) is not None:
        return found
    if node.wildcard is not None and segment:
        return _walk(node.wildcard, segments, at + 1, verb)
    return None


def _decoded(segment: str) -> str:
    """Percent-decoding, except of `%2F`, which would make one segment two (google/api/http.proto)."""
    try:
        text = "%2F".join(unquote_to_bytes(part).decode() for part in re.split("%2[Ff]", segment))
    except UnicodeDecodeError:
        raise InvalidInput("the path is not UTF-8", violations=[Violation("path", "must be percent-encoded UTF-8")]) from None
    if any(character < " " or character == "\x7f" for character in text):
        raise InvalidInput("the path holds a control character", violations=[Violation("path", "must not contain control characters")])
    return text
