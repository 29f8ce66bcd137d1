"""The contract as the gateway reads it: every RPC of the descriptor set with its options, comments and message classes.

The set is loaded into a pool of its own. Options are parsed with that pool's classes, because extensions (access rules,
HTTP rules, validation rules) are unknown fields to classes of another pool; and two copies of one file in one pool, such
as another library's `buf/validate/validate.proto`, are an error that a private pool cannot run into.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

PUBLIC, INTERNAL, SELF = "PUBLIC", "INTERNAL", "SELF"


@dataclass(frozen=True, slots=True)
class Rpc:
    """One unary method of a Steward service."""

    service: str  # `work_orders`: the process that answers it
    group: str  # `Repairs`: the service of the proto
    name: str  # `ReportRepair`
    path: str  # `/steward.work_orders.v1.Repairs/ReportRepair`
    input: Any  # class of the request message
    output: Any
    scope: str  # name of steward.options.v1.Scope
    roles: tuple[str, ...]
    rules: tuple[Any, ...]  # google.api.HttpRule, additional bindings after the first
    comment: str

    @property
    def routed(self) -> bool:
        return bool(self.rules) and self.scope != INTERNAL


class Contract:
    """A FileDescriptorSet, loaded."""

    def __init__(self, data: bytes) -> None:
        plain = descriptor_pb2.FileDescriptorSet.FromString(data)
        self.pool = descriptor_pool.DescriptorPool()
        for file in plain.file:
            self.pool.AddSerializedFile(file.SerializeToString())
        if not any(file.name == "google/protobuf/descriptor.proto" for file in plain.file):
            raise ValueError("the descriptor set was made without --include_imports")
        # Parsed again, now that the pool knows the extensions of the options.
        self._files = self.message_class("google.protobuf.FileDescriptorSet").FromString(data).file
        self._comments: dict[str, str] = {}
        self._options: dict[str, Any] = {}
        for file in self._files:
            self._read_comments(file)
            for message in file.message_type:
                self._read_options(file.package, message)
        self.rpcs: tuple[Rpc, ...] = tuple(self._read_rpcs())

    @classmethod
    def load(cls, path: str | Path) -> Contract:
        """Raises OSError when the file is missing, ValueError when it is not a usable descriptor set."""
        try:
            return cls(Path(path).read_bytes())
        except (TypeError, KeyError, DecodeError) as error:
            raise ValueError(f"{path} is not a complete descriptor set: {error}") from error

    def message_class(self, full_name: str) -> Any:
        """Raises KeyError when there is no such message."""
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(full_name))

    def comment(self, full_name: str) -> str:
        """Comment above (else beside) a message, field, enum, value, service or method; of a file (`steward/…/events.proto`) the one
        above its package. Empty when there is none."""
        return self._comments.get(full_name, "")

    def field_option(self, field: FieldDescriptor, extension: str) -> Any:
        """Value of an option of a field (`buf.validate.field`), or None where it is not set."""
        return self._extension(self._options.get(field.full_name), extension)

    def message_option(self, message: Descriptor, extension: str) -> Any:
        return self._extension(self._options.get(message.full_name), extension)

    def behaviours(self, field: FieldDescriptor) -> frozenset[str]:
        """AIP-203 behaviours of a field by name: REQUIRED, OUTPUT_ONLY, …"""
        values = self.field_option(field, "google.api.field_behavior")
        if not values:
            return frozenset()
        names = self.pool.FindEnumTypeByName("google.api.FieldBehavior").values_by_number
        return frozenset(names[value].name for value in values)

    def messages(self) -> Iterator[Descriptor]:
        """Every message of Steward's own packages, nested ones included."""

        def walk(message: Descriptor) -> Iterator[Descriptor]:
            yield message
            for nested in message.nested_types:
                if not nested.GetOptions().map_entry:
                    yield from walk(nested)

        for file in self._files:
            if file.package.startswith("steward."):
                for message in file.message_type:
                    yield from walk(self.pool.FindMessageTypeByName(f"{file.package}.{message.name}"))

    def resources(self) -> Iterator[tuple[str, str]]:
        """Every kind of resource (AIP-123) by the name of its last variable: `repair`, `estates/{estate}/repairs/{repair}`."""
        for message in self.messages():
            resource = self.message_option(message, "google.api.resource")
            for pattern in resource.pattern if resource is not None else ():
                yield pattern.rpartition("{")[2].rstrip("}"), pattern

    def _extension(self, options: Any, extension: str) -> Any:
        if options is None:
            return None
        try:
            known = self.pool.FindExtensionByName(extension)
        except KeyError:  # no file of the set imports it
            return None
        if known.is_repeated:
            return options.Extensions[known]
        return options.Extensions[known] if options.HasExtension(known) else None

    def _read_rpcs(self) -> Iterator[Rpc]:
        for file in self._files:
            if not file.package.startswith("steward."):
                continue
            for service in file.service:
                for method in service.method:
                    yield self._read_rpc(file, service, method)

    def _read_rpc(self, file: Any, service: Any, method: Any) -> Rpc:
        full_name = f"{file.package}.{service.name}.{method.name}"
        access = self._extension(method.options, "steward.options.v1.access")
        rule = self._extension(method.options, "google.api.http")
        if access is None or not access.scope:
            raise ValueError(f"{full_name} says nothing about who may call it: (steward.options.v1.access) with a scope is needed")
        if rule is not None and (method.client_streaming or method.server_streaming):
            raise ValueError(f"{full_name} is a stream and cannot have a REST route")
        roles = self.pool.FindEnumTypeByName("steward.options.v1.Role").values_by_number
        scopes = self.pool.FindEnumTypeByName("steward.options.v1.Scope").values_by_number
        return Rpc(
            service=file.package.split(".")[1],
            group=service.name,
            name=method.name,
            path=f"/{file.package}.{service.name}/{method.name}",
            input=self.message_class(method.input_type.lstrip(".")),
            output=self.message_class(method.output_type.lstrip(".")),
            scope=scopes[access.scope].name,
            roles=tuple(roles[role].name for role in access.roles),
            rules=() if rule is None else (rule, *rule.additional_bindings),
            comment=self.comment(full_name),
        )

    def _read_options(self, prefix: str, message: Any) -> None:
        name = f"{prefix}.{message.name}"
        self._options[name] = message.options
        for field in message.field:
            self._options[f"{name}.{field.name}"] = field.options
        for nested in message.nested_type:
            self._read_options(name, nested)

    def _read_comments(self, file: Any) -> None:
        """Source info addresses elements by paths of field numbers of FileDescriptorProto (descriptor.proto)."""
        by_path = {tuple(place.path): place for place in file.source_code_info.location}

        def note(path: tuple[int, ...], name: str) -> None:
            place = by_path.get(path)
            if place is not None and (text := place.leading_comments or place.trailing_comments):
                self._comments[name] = "\n".join(line.strip() for line in text.strip().splitlines())

        def enums(path: tuple[int, ...], prefix: str, found: Any) -> None:
            for i, enum in enumerate(found):
                note((*path, i), f"{prefix}.{enum.name}")
                for j, value in enumerate(enum.value):
                    note((*path, i, 2, j), f"{prefix}.{enum.name}.{value.name}")

        def messages(path: tuple[int, ...], prefix: str, found: Any) -> None:
            for i, message in enumerate(found):
                name = f"{prefix}.{message.name}"
                note((*path, i), name)
                for j, field in enumerate(message.field):
                    note((*path, i, 2, j), f"{name}.{field.name}")
                messages((*path, i, 3), name, message.nested_type)
                enums((*path, i, 4), name, message.enum_type)

        note((2,), file.name)
        messages((4,), file.package, file.message_type)
        enums((5,), file.package, file.enum_type)
        for i, service in enumerate(file.service):
            note((6, i), f"{file.package}.{service.name}")
            for j, method in enumerate(service.method):
                note((6, i, 2, j), f"{file.package}.{service.name}.{method.name}")
