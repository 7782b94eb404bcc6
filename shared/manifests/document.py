"""A manifest file as objects: each with its key, its JSON, the line of every field, and all that is wrong with its form.

Owns the reading of a file (several documents, `kind: List`, JSON): what `kubectl apply -f` would send. Must not open files,
and must not know the rules that need other objects (shared/admission).
"""

from __future__ import annotations

import difflib
import re
from typing import Any, cast

import msgspec

from shared.manifests import shape
from shared.manifests.kinds import API_VERSION, GROUP, KINDS, Kind, group_of, kind_of
from shared.manifests.meta import Json, Object, ObjectMeta
from shared.manifests.problem import FieldError, Invalid, Problem, entry, invalid, segments
from shared.manifests.yamltree import Tree, load

DEFAULT_NAMESPACE = "default"
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""RFC 1123 subdomain, at most 253 characters: the names of nearly all objects."""
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""RFC 1123 label: namespaces, and names in the comma form of a networks annotation."""


class ObjectKey(msgspec.Struct, frozen=True, order=True):
    """Which object: `namespace` is empty for a cluster-scoped one."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}" if self.namespace else f"{self.kind}/{self.name}"


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """One object of a file. `errors` keep it out of force; `warnings` do not. `raw` has its namespace filled in."""

    file: str
    line: int
    key: ObjectKey
    api_version: str
    raw: Json
    tree: Tree
    above: tuple[str, ...]
    errors: tuple[FieldError, ...] = ()
    warnings: tuple[FieldError, ...] = ()

    @property
    def kind(self) -> Kind | None:
        return kind_of(self.api_version, self.key.kind)

    @property
    def label(self) -> str:
        """`Kind/ns/name`, or what is known of it."""
        return str(self.key).strip("/")

    def line_of(self, field: str) -> int:
        """The line of a field path of this object, or of the nearest thing around it."""
        return self.tree.line_of((*self.above, *segments(field))) if field else self.line

    def problem(self, error: FieldError) -> Problem:
        return Problem(
            file=self.file,
            line=self.line_of(error.field),
            object=self.label,
            field=error.field,
            code=error.code,
            message=error.message,
        )


class ManifestFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says. `unreadable` are the mistakes that belong to no document."""

    file: str
    documents: tuple[Document, ...]
    unreadable: tuple[Problem, ...]

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All mistakes of form, in the order of lines."""
        found = [document.problem(error) for document in self.documents for error in document.errors]
        return tuple(sorted([*self.unreadable, *found], key=lambda one: one.line))

    @property
    def warnings(self) -> tuple[Problem, ...]:
        return tuple(document.problem(one) for document in self.documents for one in document.warnings)


def parse(text: str | bytes, file: str) -> ManifestFile:
    """Reads a manifest. Never raises; a mistake in one document does not hide the others."""
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            line = text[: error.start].count(b"\n") + 1
            return _unreadable(file, line, f"the file is not UTF-8: byte {text[error.start]:#04x}")
    documents: list[Document] = []
    unreadable: list[Problem] = []
    for tree in load(text):
        found = _documents(file, tree)
        if not found:
            unreadable += [_at(file, line, "", error) for error, line in tree.errors]
        documents += found
    seen: dict[tuple[str, ObjectKey], int] = {}
    for i, document in enumerate(documents):
        identity = (group_of(document.api_version), document.key)
        if document.key.name and identity in seen:
            first = documents[seen[identity]]
            twice = invalid(
                "metadata.name", f"the same object stands at line {first.line} of this file", "Duplicate"
            )
            documents[i] = msgspec.structs.replace(document, errors=(*document.errors, twice))
        seen.setdefault(identity, i)
    return ManifestFile(file=file, documents=tuple(documents), unreadable=tuple(unreadable))


def from_json(raw: Json) -> Document:
    """An object that has no file (from the API server, or stored): the same checks, without lines."""
    tree = Tree(value=raw, line=0, lines={}, errors=())
    return _document("", tree, raw, (), [])


def _unreadable(file: str, line: int, sentence: str) -> ManifestFile:
    return ManifestFile(
        file=file, documents=(), unreadable=(_at(file, line, "", invalid("", sentence, "Unreadable")),)
    )


def _at(file: str, line: int, object_: str, error: FieldError) -> Problem:
    return Problem(
        file=file, line=line, object=object_, field=error.field, code=error.code, message=error.message
    )


def _documents(file: str, tree: Tree) -> list[Document]:
    if tree.value is None:
        return []
    if not isinstance(tree.value, dict):
        return [_document(file, tree, tree.value, (), _within(tree, ""))]
    raw = cast("Json", tree.value)
    kind = raw.get("kind")
    items = raw.get("items")
    if isinstance(kind, str) and kind.endswith("List") and isinstance(items, list):
        return [
            _document(file, tree, item, ("items", str(i)), _within(tree, entry("items", i)))
            for i, item in enumerate(cast("list[object]", items))
        ]
    return [_document(file, tree, raw, (), _within(tree, ""))]


def _within(tree: Tree, prefix: str) -> list[FieldError]:
    """The reading mistakes of one item, with paths relative to it."""
    return [
        invalid(error.field[len(prefix) :].lstrip("."), error.message, error.code)
        for error, _ in tree.errors
        if error.field == prefix or not prefix or error.field.startswith((prefix + ".", prefix + "["))
    ]


def _text(raw: Json, key: str) -> str:
    value = raw.get(key)
    return value if isinstance(value, str) else ""


def _document(
    file: str, tree: Tree, value: object, above: tuple[str, ...], read: list[FieldError]
) -> Document:
    line = tree.line_of(above)
    if not isinstance(value, dict):
        error = invalid("", "a document must be an object with apiVersion, kind and metadata", "Unreadable")
        return _assemble(file, tree, above, line, {}, ObjectKey("", "", ""), [*read, error], ())
    raw = cast("Json", value)
    errors: list[FieldError] = read + [
        invalid(key, f"{key} must be given as a string", "Required")
        for key in ("apiVersion", "kind")
        if not _text(raw, key)
    ]
    api_version, kind_name = _text(raw, "apiVersion"), _text(raw, "kind")
    meta: object = raw.get("metadata")
    if not isinstance(meta, dict):
        errors.append(invalid("metadata", "metadata must be an object with a name", "Required"))
        meta = {}
    meta = cast("Json", meta)
    row = kind_of(api_version, kind_name)
    errors += _name_errors(row, meta)
    if kind_name in _OURS and api_version and api_version != API_VERSION:
        sentence = f"{kind_name} is not served as {api_version[:80]}; use {API_VERSION}"
        errors.append(invalid("apiVersion", sentence, "NotSupported"))
    namespace = _text(meta, "namespace")
    if row is not None:
        namespace = (namespace or DEFAULT_NAMESPACE) if row.namespaced else ""
        raw = {**raw, "metadata": _placed(meta, namespace)}
    fit = shape.misfits(row.type if row else _Bare, raw, whole=row is not None and row.ours)
    errors += [
        error
        for error in fit.errors
        if error.field not in ("metadata", "metadata.name", "apiVersion", "kind")
    ]
    warnings = (
        *_kind_warnings(api_version, kind_name),
        *(one for one in fit.unknown if not one.field.startswith("status")),
    )
    key = ObjectKey(kind_name, namespace, _text(meta, "name"))
    return _assemble(file, tree, above, line, raw, key, errors, warnings, api_version)


_OURS = {row.kind: row for row in KINDS if row.ours}


def _kind_warnings(api_version: str, kind: str) -> list[FieldError]:
    """A kind of our group that we do not have is kept as any other, but it may be a slip."""
    if group_of(api_version) != GROUP or kind in _OURS or not kind:
        return []
    near = difflib.get_close_matches(kind[:64], _OURS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return [invalid("kind", f"there is no kind {kind[:64]} in {GROUP}, so it has no effect{hint}", "Unknown")]


class _Bare(msgspec.Struct, frozen=True, kw_only=True):
    """All that we demand of a kind that we do not know."""

    metadata: ObjectMeta = ObjectMeta()


def _assemble(
    file: str,
    tree: Tree,
    above: tuple[str, ...],
    line: int,
    raw: Json,
    key: ObjectKey,
    errors: list[FieldError],
    warnings: tuple[FieldError, ...],
    api_version: str = "",
) -> Document:
    return Document(
        file=file,
        line=line,
        key=key,
        api_version=api_version,
        raw=raw,
        tree=tree,
        above=above,
        errors=tuple(errors),
        warnings=warnings,
    )


def _placed(meta: Json, namespace: str) -> Json:
    """Metadata with the namespace that the API server would store: none for a cluster-scoped kind."""
    out: dict[str, Any] = {key: value for key, value in meta.items() if key != "namespace"}
    if isinstance(meta.get("namespace"), str | None) and namespace:
        out["namespace"] = namespace
    elif "namespace" in meta and not isinstance(meta["namespace"], str | None):
        out["namespace"] = meta["namespace"]
    return out


def _name_errors(row: Kind | None, meta: Json) -> list[FieldError]:
    name = meta.get("name")
    if not isinstance(name, str) or not name:
        out = [invalid("metadata.name", "the object must have a name, a string", "Required")]
    elif row is None or (
        LABEL.fullmatch(name) if row.kind == "Namespace" else len(name) <= 253 and SUBDOMAIN.fullmatch(name)
    ):
        out = []
    else:
        sentence = f"{name[:80]!r} is not a DNS-1123 name: lower-case letters, digits, - and ."
        out = [invalid("metadata.name", sentence)]
    if row is None:
        return out
    namespace = meta.get("namespace")
    if row.namespaced and isinstance(namespace, str) and namespace and not LABEL.fullmatch(namespace):
        out.append(invalid("metadata.namespace", f"{namespace[:80]!r} is not a DNS-1123 label"))
    return out


def typed(document: Document) -> Object | Invalid:
    """The object as its type; `Object` for a kind that is not in the table."""
    row = document.kind
    return shape.decode(row.type if row else Object, document.raw)
