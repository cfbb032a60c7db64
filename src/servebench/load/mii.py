"""The gRPC messages of DeepSpeed-MII, without MII: a request and its replies on the wire.

    POST /modelresponse.ModelResponse/GeneratorReplyStream   a MultiStringRequest; a MultiGenerationReply per token
    POST /modelresponse.ModelResponse/GeneratorReply         the same, with one reply

A gRPC message is a byte (0: not compressed), its length (4 bytes) and the protobuf message.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from servebench.errors import InputError

SERVICE = "/modelresponse.ModelResponse/"
HEAD = 5

# Fields by message: name, number, type; "*" marks a repeated one. On the wire a protobuf map is a list of
# (key, value) messages, and a oneof a choice of fields.
MESSAGES = {
    "Value": [("svalue", 1, "string"), ("ivalue", 2, "int64"), ("fvalue", 3, "float"), ("bvalue", 4, "bool")],
    "Keyword": [("key", 1, "string"), ("value", 2, "Value")],
    "MultiStringRequest": [("request*", 1, "string"), ("query_kwargs*", 2, "Keyword")],
    "SingleGenerationReply": [
        ("response", 1, "string"),
        ("finish_reason", 2, "string"),
        ("prompt_tokens", 3, "int64"),
        ("generated_tokens", 4, "int64"),
    ],
    "MultiGenerationReply": [("response*", 1, "SingleGenerationReply")],
}
VALUE_FIELDS = {bool: "bvalue", int: "ivalue", float: "fvalue", str: "svalue"}


class Reply(NamedTuple):
    """One reply: new text, or the whole text where it is the only reply. Tokens count from the start."""

    text: str
    prompt_tokens: int
    generated_tokens: int
    finish_reason: str | None


@cache
def classes() -> dict[str, Any]:
    """Message classes from the table. In proto2, since proto3 would leave out a False that MII must be sent."""
    from google.protobuf import (
        descriptor_pb2,
        descriptor_pool,
        message_factory,
    )  # slow: a tenth of the driver's start

    file = descriptor_pb2.FileDescriptorProto(name="mii.proto", package="modelresponse", syntax="proto2")
    of = descriptor_pb2.FieldDescriptorProto
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            added = message.field.add(name=field.rstrip("*"), number=number)
            added.label = of.LABEL_REPEATED if field.endswith("*") else of.LABEL_OPTIONAL
            if kind in MESSAGES:
                added.type, added.type_name = of.TYPE_MESSAGE, f".modelresponse.{kind}"
            else:
                added.type = getattr(of, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"modelresponse.{name}"))
        for name in MESSAGES
    }


def encode(body: dict[str, Any]) -> bytes:
    """A request: `prompt`, and keywords of MII's generate. Raises InputError for a value that MII cannot take."""
    request = classes()["MultiStringRequest"](request=[body["prompt"]])
    for name, value in body.items():
        if name == "prompt":
            continue
        field = VALUE_FIELDS.get(type(value))
        if not field:
            kind = type(value).__name__
            raise InputError(f"{name!r} of --extra_body is a {kind}; MII takes true or false, a number, or a text")
        request.query_kwargs.add(key=name, value=classes()["Value"](**{field: value}))
    message: bytes = request.SerializeToString()
    return b"\0" + len(message).to_bytes(4, "big") + message


def decode(message: bytes) -> Reply:
    """Raises ValueError when it is not a reply to one prompt."""
    from google.protobuf.message import DecodeError

    try:
        replies = classes()["MultiGenerationReply"].FromString(message).response
    except DecodeError as error:
        raise ValueError(f"not a reply of MII: {error}") from error
    if len(replies) != 1:
        raise ValueError(f"a reply of MII to {len(replies)} prompts")
    r = replies[0]
    reason = None if r.finish_reason == "none" else r.finish_reason
    return Reply(r.response, max(0, r.prompt_tokens), max(0, r.generated_tokens), reason)


def messages(parts: list[tuple[bytes, int]]) -> Iterator[tuple[bytes, int]]:
    """(message, index of the segment in which it became whole) of a body, without a last one that was cut off."""
    held = b""
    for data, segment in parts:
        held += data
        while len(held) >= HEAD and len(held) >= (end := HEAD + int.from_bytes(held[1:HEAD], "big")):
            yield held[HEAD:end], segment
            held = held[end:]
