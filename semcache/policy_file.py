"""Policies as TOML files."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import sys
from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final

from semcache.errors import ConfigurationError
from semcache.policy import OVERRIDES, Evidence, Override, Policy
from semcache.scoring import Scoring

_Fields = dict[str, str]

_RULES: Final[_Fields] = {
    "threshold": "number",
    "min_probability": "number",
    "answers": "text",
    "min_agreement": "number",
    "guards": "names",
    "ttl": "number",
    "time_bound_ttl": "number",
    "stale_if_error": "number",
    "semantic": "switch",
    "mode": "text",
}
_POLICY: Final[_Fields] = {
    **_RULES,
    "uncovered_threshold": "number",
    "verify_from": "number",
    "verify_at_least": "number",
    "verify_within_s": "number",
    "context": "text",
    "window": "count",
    "secrets": "text",
    "emails_are_secret": "switch",
    "audit_rate": "number",
    "max_false_hit_rate": "number",
    "audit_confidence": "number",
    "max_temperature": "number",
    "k": "count",
    "collapse_wait_s": "number",
    "embed_budget_s": "number",
}
_EVIDENCE: Final[_Fields] = {
    "fingerprint": "text",
    "data": "names",
    "date": "text",
    "hits": "count",
    "wrong_hits": "count",
    "requests": "count",
    "max_false_hit_rate": "number",
    "max_unsafe_rate": "number",
    "confidence": "number",
    "note": "text",
}


def load(path: str | PathLike[str]) -> Policy:
    """See :meth:`semcache.policy.Policy.load`."""
    source = fspath(path)
    try:
        document = _parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{source}: {error}") from error
    return _policy(document, source)


def save(policy: Policy, path: str | PathLike[str]) -> None:
    """See :meth:`semcache.policy.Policy.save`."""
    Path(path).write_text(dumps(policy), encoding="utf-8")


def dumps(policy: Policy) -> str:
    """A policy as TOML. Every value is written, defaults too, so that a later default cannot change an old file."""
    if policy.verifier is not None:
        raise ConfigurationError("a verifier cannot be written to a file; set it in code on the loaded policy")
    if policy.rewrite is not None:
        raise ConfigurationError("a rewrite cannot be written to a file; set it in code on the loaded policy")
    lines = _assignments(policy, _POLICY)
    for table in OVERRIDES:
        for name, override in getattr(policy, table).items():
            lines += ["", f"[{table}.{_text(name)}]", *_assignments(override, _RULES)]
    if policy.evidence is not None:
        lines += ["", "[evidence]", *_assignments(policy.evidence, _EVIDENCE)]
    if policy.scoring is not None:
        lines += ["", "[scoring]", *_model(policy.scoring)]
    return "\n".join(lines) + "\n"


def _parse(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def _policy(document: Mapping[str, Any], source: str) -> Policy:
    tables = (*OVERRIDES, "evidence", "scoring")
    values = _values({key: value for key, value in document.items() if key not in tables}, _POLICY, source, "", tables)
    evidence, scoring = document.get("evidence"), document.get("scoring")
    try:
        return Policy(
            **values,
            **{table: _overrides(document.get(table, {}), source, table) for table in OVERRIDES},  # type: ignore[arg-type]
            evidence=None if evidence is None else _evidence(_table(evidence, source, "evidence"), source),
            scoring=None if scoring is None else Scoring.of(_table(scoring, source, "scoring")),
        )
    except ConfigurationError as error:
        raise error if str(error).startswith(source) else ConfigurationError(f"{source}: {error}") from error


def _overrides(value: object, source: str, table: str) -> dict[str, Override]:
    return {
        name: Override(**_values(_table(rules, source, name), _RULES, source, f"{table}.{name}."))
        for name, rules in _table(value, source, table).items()
    }


def _evidence(table: Mapping[str, Any], source: str) -> Evidence:
    if "fingerprint" not in table:
        raise ConfigurationError(f"{source}: evidence.fingerprint is missing: which embedder is this policy for?")
    return Evidence(**_values(table, _EVIDENCE, source, "evidence."))


def _model(scoring: Scoring) -> list[str]:
    """A model, one tree a line. Lists and finite numbers are written alike in JSON and TOML."""
    document = scoring.to_dict()
    trees = [f"  {json.dumps(tree)}," for tree in document.pop("trees")]
    return [*(f"{name} = {json.dumps(value)}" for name, value in document.items()), "trees = [", *trees, "]"]


def _table(value: object, source: str, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigurationError(f"{source}: {name} must be a table")
    return value


def _values(
    table: Mapping[str, Any], fields: _Fields, source: str, prefix: str, also: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The values of one table, each of the declared kind."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        kind = fields.get(key)
        if kind is None:
            near = difflib.get_close_matches(key, (*fields, *also), n=1, cutoff=0.0)
            raise ConfigurationError(f"{source}: unknown key {prefix + key!r}; did you mean {near[0]!r}?")
        values[key] = _value(value, kind, f"{source}: {prefix}{key}")
    return values


def _value(value: object, kind: str, where: str) -> object:
    if kind == "switch" and isinstance(value, bool):
        return value
    if kind == "count" and isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if kind == "number" and isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value):
        return float(value)
    if kind == "text" and isinstance(value, str):
        return value
    if kind == "names" and isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    wanted = {"switch": "true or false", "count": "a whole number", "names": "a list of strings"}.get(kind, f"a {kind}")
    raise ConfigurationError(f"{where} must be {wanted}, not {value!r}")


def _assignments(record: object, fields: _Fields) -> list[str]:
    """``key = value`` lines in the order of the record's fields; ``None`` is left out."""
    names = [spec.name for spec in dataclasses.fields(record) if spec.name in fields]  # type: ignore[arg-type]
    values = [(name, getattr(record, name)) for name in names]
    return [f"{name} = {_written(value)}" for name, value in values if value is not None]


def _written(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, tuple):
        return f"[{', '.join(_text(item) for item in value)}]"
    return repr(value)


def _text(value: str) -> str:
    """A basic string. JSON's escapes are TOML's, but TOML escapes DEL too and knows no lone surrogates."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
