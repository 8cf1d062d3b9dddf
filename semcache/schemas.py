"""JSON schemas that requests demand of their answers, and whether an answer keeps to one.

The answer to another question was made under the same schema, but nothing says that its provider enforced it, and a
program at the other end would trip over it. So a hit is checked before it is served. Validation is by the package
``jsonschema-rs`` (extra ``schema``): one wheel without dependencies, some microseconds an answer, and no schema is
compiled to Python. References to other documents are not followed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final

import orjson

from semcache.live.answers import text_of

if TYPE_CHECKING:
    from semcache.types import Request

Schema = Mapping[str, Any] | str

ANY_JSON: Final[Schema] = {}
"""What JSON mode demands: an answer that is JSON, whatever it holds."""

# Where a body holds its schema, by openai 3.54.0, anthropic 2.12.0, google-genai 3.4, botocore 1.44.5, and by vLLM's
# pages on structured outputs (general knowledge). 2026-11-21.
_PLACES: Final = (
    ("response_format", "json_schema", "schema"),
    ("text", "format", "schema"),
    ("output_config", "format", "schema"),
    ("output_format", "schema"),
    ("generationConfig", "responseJsonSchema"),
    ("generationConfig", "responseSchema"),
    ("outputConfig", "textFormat", "structure", "jsonSchema", "schema"),
    ("structured_outputs", "json"),
    ("guided_json",),
)
# Where a body asks for JSON mode, and by which value. Likewise.
_JSON_MODE: Final = (
    (("response_format", "type"), "json_object"),
    (("text", "format", "type"), "json_object"),
    (("generationConfig", "responseMimeType"), "application/json"),
)
_FIELDS: Final = frozenset([path[0] for path in _PLACES] + [path[0] for path, _ in _JSON_MODE])


def demanded(request: Request) -> Schema | None:
    """The schema that the answer to a request must keep to, as it was sent; ``None`` if there is none.

    :data:`ANY_JSON` in JSON mode.
    """
    # A function's arguments are often those that it hands on to OpenAI's SDK.
    body = request.scope.get("body", request.scope.get("arguments"))
    if not isinstance(body, dict) or body.keys().isdisjoint(_FIELDS):  # as nearly always, on the way to every hit
        return None
    for path in _PLACES:
        schema: Schema | None = _at(body, path)
        if schema:
            return schema
    return ANY_JSON if any(_at(body, path) == asked for path, asked in _JSON_MODE) else None


def _at(body: dict[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = body
    for name in path:
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    return found


def keeps_to(schema: Schema, answer: bytes) -> str | None:
    """What is wrong with an answer; empty if nothing is, ``None`` if it cannot be told.

    Of JSON it cannot without ``jsonschema-rs``, nor by a schema that this package refuses; nor of a string that is not
    JSON, since a function may have taken it out of what the provider said. An answer that is no text (tool calls, a
    refusal) is not the schema's affair.

    Args:
        answer: JSON bytes, as entries keep them.
    """
    value = orjson.loads(answer)
    text = value if isinstance(value, str) else text_of(value)
    if text is None or (text is value and schema is ANY_JSON):
        return ""
    try:
        instance = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None if text is value else "it is not JSON"
    if schema is ANY_JSON:
        return ""
    validator = _validator(schema if isinstance(schema, str) else orjson.dumps(schema)) if available() else None
    if validator is None:
        return None
    error = next(validator.iter_errors(instance), None)
    # The path and the keyword, not the message: that quotes the answer.
    return "" if error is None else f"{_path(error.instance_path)} breaks {_path(error.schema_path)}"


@cache
def available() -> bool:
    """Whether answers can be validated in this environment."""
    return importlib.util.find_spec("jsonschema_rs") is not None


@lru_cache(maxsize=256)
def _validator(schema: str | bytes) -> Any:
    import jsonschema_rs

    try:
        return jsonschema_rs.validator_for(_plain(orjson.loads(schema)), retriever=_refuse)
    except ValueError:
        return None


def _refuse(uri: str) -> Any:
    raise ValueError(f"not followed: {uri}")


def _plain(schema: Any) -> Any:
    """Gemini's ``responseSchema``, a dialect of OpenAPI 3.0, as JSON schema; anything else as it is."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    # A property may have that name, too.
    plain = {name: _plain(value) for name, value in schema.items() if name != "nullable" or isinstance(value, dict)}
    kind = plain.get("type")
    if isinstance(kind, str) and kind.isupper():
        plain["type"] = [kind.lower(), "null"] if schema.get("nullable") is True else kind.lower()
    return plain


def _path(steps: list[str | int]) -> str:
    return "/" + "/".join(map(str, steps))
