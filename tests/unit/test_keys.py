"""What makes two requests one, and what never does."""

import math
import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from semcache.errors import CanonicalError
from semcache.keys import ABSENT, canonical, diff, make_key
from semcache.types import Request

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


def shuffled(value, order):
    if isinstance(value, dict):
        items = [(k, shuffled(v, order)) for k, v in value.items()]
        order.shuffle(items)
        return dict(items)
    if isinstance(value, list):
        return [shuffled(v, order) for v in value]
    return value


def has_clashing_keys(value):
    if isinstance(value, dict):
        names = {unicodedata.normalize("NFC", k) for k in value}
        return len(names) < len(value) or any(map(has_clashing_keys, value.values()))
    return isinstance(value, list) and any(map(has_clashing_keys, value))


@given(json_values, st.randoms(use_true_random=False))
def test_the_order_of_fields_never_changes_the_bytes(value, order):
    assume(not has_clashing_keys(value))
    assert canonical(value) == canonical(shuffled(value, order))


@given(text)
def test_composed_and_decomposed_unicode_are_one(value):
    assert canonical(unicodedata.normalize("NFD", value)) == canonical(unicodedata.normalize("NFC", value))


@given(st.integers(-(2**53), 2**53))
def test_an_integral_float_is_the_integer(number):
    assert canonical({"n": float(number)}) == canonical({"n": number})


@given(json_values, json_values)
def test_equal_bytes_mean_equal_values(a, b):
    assume(not has_clashing_keys(a) and not has_clashing_keys(b))
    assume(canonical(a) != canonical(b))
    key_a = make_key(Request("api", {"value": a}, "hi"), "default", None)
    key_b = make_key(Request("api", {"value": b}, "hi"), "default", None)
    assert key_a.canonical != key_b.canonical
    assert key_a.scope_id != key_b.scope_id
    assert diff(key_a, key_b)


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": [1, math.nan]}, r"\$\.a\[1\] is nan"),
        ({"a": math.inf}, r"\$\.a is inf"),
        ({"a": -math.inf}, r"\$\.a is -inf"),
        ({"a": {1: 2}}, r"\$\.a has the key 1"),
        ({"a": {1, 2}}, r"\$\.a is a set"),
        ({"é": 1, "e\u0301": 2}, "twice"),
        ({"a": 2**70}, "no canonical form"),
        ({"a": "\ud800"}, "no canonical form"),
    ],
)
def test_what_has_no_canonical_form_is_refused(value, where):
    with pytest.raises(CanonicalError, match=where):
        canonical(value)


def test_a_value_that_is_nested_too_deep_is_refused():
    value: list = []
    for _ in range(5000):
        value = [value]
    with pytest.raises(CanonicalError):
        canonical(value)


def test_nan_is_not_null():
    with pytest.raises(CanonicalError):
        canonical(math.nan)
    assert canonical(None) == b"null"


def test_huge_floats_stay_floats_and_huge_integers_are_refused():
    assert float(canonical(1e300)) == 1e300
    with pytest.raises(CanonicalError):
        canonical(10**300)


def test_attachments_stand_as_digests():
    assert canonical({"image": b"abc"}) == canonical({"image": bytearray(b"abc")})
    assert canonical({"image": b"abc"}) != canonical({"image": b"abd"})
    assert b"abc" not in canonical({"image": b"abcabcabc"})


REQUEST = {
    "model": "m",
    "system": "You are kind.",
    "tools": [{"name": "t", "parameters": {"type": "object"}}],
    "response_format": {"type": "json_object"},
    "temperature": 0.5,
    "messages": [{"role": "user", "content": "yes"}, {"role": "assistant", "content": "ok"}],
    "attachment": {"$sha256": "aa"},
}
CHANGES = {
    "model": "n",
    "system": "You are kind. ",
    "tools": [{"name": "t", "parameters": {"type": "array"}}],
    "response_format": None,
    "temperature": 0.6,
    "messages": [{"role": "user", "content": "no"}, {"role": "assistant", "content": "ok"}],
    "attachment": {"$sha256": "ab"},
}


@pytest.mark.parametrize("field", CHANGES)
def test_any_change_of_the_scope_changes_key_and_scope(field):
    a = make_key(Request("api", REQUEST, "hi"), "default", None)
    b = make_key(Request("api", {**REQUEST, field: CHANGES[field]}, "hi"), "default", None)
    absent = make_key(Request("api", {k: v for k, v in REQUEST.items() if k != field}, "hi"), "default", None)
    assert len({a.id, b.id, absent.id}) == len({a.scope_id, b.scope_id, absent.scope_id}) == 3
    assert all(d.path.startswith(f"request.{field}") for d in diff(a, b))
    assert diff(a, absent)[0].b is ABSENT


@pytest.mark.parametrize(
    ("namespace", "tenant", "api"),
    [("other", None, "api"), ("default", "t", "api"), ("default", "", "api"), ("default", None, "api2")],
)
def test_namespace_tenant_and_api_separate(namespace, tenant, api):
    a = make_key(Request("api", REQUEST, "hi"), "default", None)
    b = make_key(Request(api, REQUEST, "hi"), namespace, tenant)
    assert a.scope_id != b.scope_id
    assert a.id != b.id


def test_only_the_text_differs_inside_a_scope():
    a = make_key(Request("api", REQUEST, "hi"), "default", None)
    b = make_key(Request("api", REQUEST, "ho"), "default", None)
    assert a.scope_id == b.scope_id
    assert a.scope == b.scope
    assert a.id != b.id
    assert [d.path for d in diff(a, b)] == ["text"]


def test_stream_is_not_part_of_the_key():
    a = make_key(Request("api", REQUEST, "hi", stream=True), "default", None)
    assert a == make_key(Request("api", REQUEST, "hi", stream=False), "default", None)


def test_text_cannot_pose_as_scope():
    """The scope is JSON on one line, so no text can end it early."""
    a = make_key(Request("api", {"a": 'x"}\n"y'}, "z"), "default", None)
    b = make_key(Request("api", {"a": "x"}, 'y"\n"z'), "default", None)
    assert a.canonical != b.canonical
    assert a.scope.count(b"\n") == 1


def test_ids_fit_a_signed_64_bit_column():
    keys = [make_key(Request("api", {}, str(i)), "default", None) for i in range(1000)]
    assert all(0 <= k.id < 2**63 and 0 <= k.scope_id < 2**63 for k in keys)
    assert len({k.id for k in keys}) == 1000
