"""YAML as Kubernetes reads it: text in, JSON values with the line of each member out, all mistakes as data.

Owns the rules of sigs.k8s.io/yaml (YAML 1.1 as go-yaml v2 resolves it, then JSON): `yes`, `on` and `y` are true, `010` is 8,
`+1` is a number, `01:10` stays a string (no base 60), timestamps stay strings, keys become strings, `<<` merges; a key given
twice is a mistake, as under kubectl's strict decoding. Must not know what an object or a kind is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, cast

import msgspec
import yaml

from shared.manifests.problem import FieldError, entry, invalid, member
from shared.manifests.scalar import number, resolve

NODES_MAX = 500_000
"""Values of one document, aliases expanded: a small text can name billions of them."""

DEPTH_MAX = 100
"""Levels of one document. The deepest schema of Kubernetes has about thirty."""

_PLAIN = "plain"
_STR = "tag:yaml.org,2002:str"
_SCALAR_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "null", "timestamp")
)


_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser where PyYAML was built with it. Only its events are used: its composer overflows the C stack on deep nesting."""


class Tree(msgspec.Struct, frozen=True, kw_only=True):
    """One document. `lines` maps the steps of a path to its line; `errors` are (mistake, line) in reading order.

    A document with errors has the value as far as it could be read, or None.
    """

    value: Any
    line: int
    lines: dict[tuple[str, ...], int]
    errors: tuple[tuple[FieldError, int], ...]
    blocks: dict[tuple[str, ...], tuple[int, str]] = {}
    """Literal block scalars (`|`): the line of their first line, and their text."""

    def line_of(self, steps: tuple[str, ...]) -> int:
        """The line of a path, or of the nearest thing around it that was written. A path may lead into the YAML that a block scalar
        holds, as the settings in a ConfigMap are."""
        for size in range(len(steps), 0, -1):
            line = self.lines.get(steps[:size])
            if line is not None:
                return self._line_within(steps[:size], steps[size:]) or line
        return self.line

    def _line_within(self, outer: tuple[str, ...], inner: tuple[str, ...]) -> int:
        if outer not in self.blocks or not inner:
            return 0
        first, text = self.blocks[outer]
        for tree in load(text):
            if isinstance(tree.value, dict) and inner[0] in cast("dict[str, Any]", tree.value):
                return first + tree.line_of(inner) - 1
        return 0


def load(text: str) -> list[Tree]:
    """Every document of `text` that is not empty. Never raises; a broken document does not hide the others."""
    if text.startswith("\ufeff"):
        text = text[1:]
    return [tree for chunk, first_line in _chunks(text) for tree in _load_chunk(chunk, first_line)]


def _chunks(text: str) -> list[tuple[str, int]]:
    """The documents of a stream as kubectl cuts it: at lines that begin with `---`. Directives stay with what follows."""
    out: list[tuple[str, int]] = []
    held: list[str] = []
    start = 1
    for line_number, line in enumerate(text.split("\n"), start=1):
        begins = line.startswith("---") and (len(line) == 3 or line[3] in " \t\r")
        if begins and any(not _silent(before) for before in held):
            out.append(("\n".join(held), start))
            held, start = [], line_number
        held.append(line)
    out.append(("\n".join(held), start))
    return out


def _silent(line: str) -> bool:
    return not line.strip() or line.startswith(("%", "#"))


def _load_chunk(chunk: str, first_line: int) -> list[Tree]:
    out: list[Tree] = []
    offset = first_line - 1
    try:
        for node in _Composer(chunk).documents():
            if not _nothing(node):
                out.append(_Reader(offset).read(node))
    except yaml.YAMLError as error:
        as_json = _json(chunk)
        if as_json is not None:
            return [Tree(value=as_json, line=first_line, lines={}, errors=())]
        out.append(_broken(_sentence(error, chunk), _error_line(error, chunk) + offset))
    except (UnicodeError, ValueError) as error:
        out.append(_broken(f"the text is not YAML: {error}", first_line))
    return out


def _json(chunk: str) -> Any:
    """The value of a text that is JSON but no YAML 1.1, as with escaped surrogate pairs. None for any other."""
    if chunk.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return _as_go_prints(msgspec.json.decode(chunk), 0)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError):
        return None


def _as_go_prints(value: Any, depth: int) -> Any:
    if depth > DEPTH_MAX:
        raise ValueError(f"nested deeper than {DEPTH_MAX}")
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list):
        return [_as_go_prints(item, depth + 1) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {key: _as_go_prints(item, depth + 1) for key, item in cast("dict[str, Any]", value).items()}
    return value


class _Composer:
    """Events to nodes. A plain scalar has the tag `plain`, so that our own rules resolve it."""

    def __init__(self, text: str) -> None:
        found = yaml.parse(text, Loader=_LOADER)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        self.events = cast("Iterator[yaml.Event]", found)
        self.anchors: dict[str, yaml.Node] = {}

    def documents(self) -> Iterator[yaml.Node]:
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                self.anchors = {}
                yield self.node(next(self.events), 0)

    def node(self, event: yaml.Event, depth: int) -> yaml.Node:
        if depth > DEPTH_MAX:
            raise yaml.MarkedYAMLError(
                problem=f"nested deeper than {DEPTH_MAX}", problem_mark=event.start_mark
            )
        if isinstance(event, yaml.AliasEvent):
            found = self.anchors.get(event.anchor or "")
            if found is None:
                problem = f"the alias *{event.anchor} has no anchor before it"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
            return found
        node: yaml.Node
        if isinstance(event, yaml.ScalarEvent):
            tag = _PLAIN if event.implicit[0] else event.tag or _STR
            node = yaml.ScalarNode(tag, event.value, event.start_mark, style=event.style)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = yaml.SequenceNode(event.tag or "", [], event.start_mark)
        else:
            node = yaml.MappingNode(
                event.tag or "" if isinstance(event, yaml.MappingStartEvent) else "", [], event.start_mark
            )
        anchor = event.anchor if isinstance(event, yaml.NodeEvent) else None
        if anchor:
            self.anchors[anchor] = node
        if isinstance(node, yaml.SequenceNode):
            while not isinstance(item := next(self.events), yaml.SequenceEndEvent):
                node.value.append(self.node(item, depth + 1))
        elif isinstance(node, yaml.MappingNode):
            while not isinstance(item := next(self.events), yaml.MappingEndEvent):
                key = self.node(item, depth + 1)
                node.value.append((key, self.node(next(self.events), depth + 1)))
        return node


def _nothing(node: yaml.Node) -> bool:
    """A document without content, as `---` at the end of a file makes it."""
    return isinstance(node, yaml.ScalarNode) and node.tag == _PLAIN and node.value == ""


def _broken(sentence: str, line: int) -> Tree:
    return Tree(value=None, line=line, lines={}, errors=((invalid("", sentence, "Unreadable"), line),))


def _sentence(error: yaml.YAMLError, chunk: str) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return f"the text is not YAML: {str(error).splitlines()[0]}"
    sentence = ", ".join(part for part in (error.context, error.problem) if part)
    line = chunk.split("\n")[_error_line(error, chunk) - 1 :][:1]
    if line and "\t" in line[0][: len(line[0]) - len(line[0].lstrip())]:
        sentence += " (YAML is indented with spaces, never with tabs)"
    return f"the text is not YAML: {sentence}"


def _error_line(error: yaml.YAMLError, chunk: str) -> int:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        return mark.line + 1 if mark else 1
    position = getattr(error, "position", 0)
    return chunk[: position if isinstance(position, int) else 0].count("\n") + 1


class _Reader:
    """Turns the nodes of one document into values."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.lines: dict[tuple[str, ...], int] = {}
        self.errors: list[tuple[FieldError, int]] = []
        self.blocks: dict[tuple[str, ...], tuple[int, str]] = {}
        self.open: set[int] = set()
        self.left = NODES_MAX

    def read(self, node: yaml.Node) -> Tree:
        value = self.value(node, "", ())
        if self.left < 0:
            self.wrong("", f"the document has more than {NODES_MAX} values", node)
        return Tree(
            value=value,
            line=self.line(node),
            lines=self.lines,
            errors=tuple(self.errors),
            blocks=self.blocks,
        )

    def line(self, node: yaml.Node) -> int:
        return node.start_mark.line + 1 + self.offset

    def wrong(self, path: str, message: str, node: yaml.Node, *, duplicate: bool = False) -> None:
        code = "Duplicate" if duplicate else "Unreadable"
        self.errors.append((invalid(path, message, code), self.line(node)))

    def value(self, node: yaml.Node, path: str, steps: tuple[str, ...]) -> Any:
        self.left -= 1
        if self.left < 0:
            return None
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        if id(node) in self.open:
            self.wrong(path, "an alias names what it is part of", node)
            return None
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return self.sequence(node, path, steps)
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, path, steps)
        finally:
            self.open.discard(id(node))
        return None

    def scalar(self, node: yaml.ScalarNode, path: str) -> Any:
        tag, text = node.tag, node.value
        if tag == _PLAIN or tag in _SCALAR_TAGS:
            value = resolve(text)
            if isinstance(value, float) and not math.isfinite(value):
                self.wrong(path, f"{text} is not a number in JSON", node)
                return None
            return value
        if tag != _STR and tag.startswith("tag:yaml.org,2002:"):
            self.wrong(path, f"the tag !!{tag.rpartition(':')[2]} is not used in manifests", node)
        return text

    def sequence(self, node: yaml.SequenceNode, path: str, steps: tuple[str, ...]) -> list[Any]:
        out: list[Any] = []
        for i, item in enumerate(node.value):
            below = (*steps, str(i))
            self.lines[below] = self.line(item)
            out.append(self.value(item, entry(path, i), below))
        return out

    def mapping(self, node: yaml.MappingNode, path: str, steps: tuple[str, ...]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag == _PLAIN and key_node.value == "<<":
                merged.update(self.merge(value_node, path, steps))
                continue
            key = self.key(key_node, path)
            if key is None:
                continue
            below = (*steps, key)
            here = member(path, key) if _IDENTIFIER.fullmatch(key) else entry(path, key)
            if key in out:
                self.wrong(here, f"the key {key!r} is given twice", key_node, duplicate=True)
                continue
            self.lines[below] = self.line(key_node)
            if isinstance(value_node, yaml.ScalarNode) and value_node.style == "|":
                self.blocks[below] = (self.line(value_node) + 1, value_node.value)
            out[key] = self.value(value_node, here, below)
        return {**merged, **out} if merged else out

    def key(self, node: yaml.Node, path: str) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self.wrong(path, "a key must be a string", node)
            return None
        value = self.scalar(node, path)
        if isinstance(value, bool):
            return "true" if value else "false"
        if value is None:
            self.wrong(path, "a key must be a string, not null", node)
            return None
        return value if isinstance(value, str) else str(value)

    def merge(self, node: yaml.Node, path: str, steps: tuple[str, ...]) -> dict[str, Any]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        out: dict[str, Any] = {}
        for source in reversed(sources):
            value = self.value(source, path, steps) if isinstance(source, yaml.MappingNode) else None
            if isinstance(value, dict):
                out.update(value)  # pyright: ignore[reportUnknownArgumentType]
            else:
                self.wrong(path, "<< takes a map or a list of maps", source)
        return out


_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
