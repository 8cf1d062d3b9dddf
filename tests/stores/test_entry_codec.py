"""Entries as bytes: nothing is lost, and nothing but an entry is ever read."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache.errors import EntryDamaged, StoreError
from semcache.keys import make_key
from semcache.stores.entry_codec import decode, encode
from semcache.testing.store_contract import make_entry
from semcache.types import Entry, Key, Request, Usage

ids = st.integers(0, 2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
seconds = st.floats(0, 1e10)
entries = st.builds(
    Entry,
    key=st.builds(
        lambda id, scope_id, scope, rest: Key(id, scope_id, scope + rest, len(scope)),
        ids,
        ids,
        st.binary(max_size=20),
        st.binary(max_size=20),
    ),
    text=st.none() | texts,
    response=st.binary(max_size=60),
    api=texts,
    namespace=texts,
    tenant=st.none() | texts,
    model=st.none() | texts,
    created_at=seconds,
    expires_at=st.none() | seconds,
    latency_s=seconds,
    usage=st.none() | st.builds(Usage, *[st.integers(0, 10**9)] * 6, st.booleans()),
    tags=st.lists(texts, max_size=3).map(tuple),
    vector=st.none() | st.integers(1, 20).flatmap(lambda d: st.binary(min_size=2 * d, max_size=2 * d)),
    fingerprint=st.none() | texts,
)


def whole(entry: Entry) -> bytes:
    return b"".join(encode(entry))


@given(entries)
def test_an_entry_survives_the_round_trip(entry: Entry) -> None:
    assert decode(entry.key.id, whole(entry)) == entry


@given(texts, st.none() | texts, st.lists(texts, max_size=2))
def test_a_text_is_not_written_twice(text: str, compared: str | None, earlier: list[str]) -> None:
    """It is most often what the canonical form says, but not where it was rewritten or stands after other turns."""
    history = [{"role": "user", "content": turn} for turn in earlier]
    key = make_key(Request("manual", {}, text, history=history), "default", None)
    entry = replace(make_entry(), key=key, text=text if compared is None else compared)
    assert decode(key.id, whole(entry)) == entry
    if compared is None and not history:
        longer = replace(entry, text=f"{text} again")
        assert len(whole(longer)) - len(whole(entry)) >= len(orjson.dumps(text)) - len("true")


@settings(max_examples=50)
@given(entries, st.data())
def test_a_truncated_entry_is_damaged(entry: Entry, data: st.DataObject) -> None:
    id, sound = entry.key.id, whole(entry)
    with pytest.raises(EntryDamaged):
        decode(id, sound[: data.draw(st.integers(0, len(sound) - 1))])
    with pytest.raises(EntryDamaged):
        decode(id, sound + data.draw(st.binary(min_size=1, max_size=8)))


def test_any_flipped_bit_is_damage() -> None:
    entry = make_entry(tags=("a",), ttl=60)
    sound = whole(entry)
    for at in range(len(sound)):
        for bit in range(8):
            spoilt = bytearray(sound)
            spoilt[at] ^= 1 << bit
            with pytest.raises(EntryDamaged):
                decode(entry.key.id, bytes(spoilt))


def test_a_part_of_another_entry_is_damage() -> None:
    ours, theirs = make_entry(tenant="ours", id=1), make_entry(tenant="theirs", id=1)
    assert encode(ours).shared != encode(theirs).shared
    with pytest.raises(EntryDamaged, match="checksum"):
        decode(1, encode(ours).own + encode(theirs).shared)
    with pytest.raises(EntryDamaged, match="checksum"):
        decode(2, whole(ours))


def test_entries_of_one_scope_share_what_they_have_in_common() -> None:
    assert encode(make_entry("one")).shared == encode(make_entry("two", ttl=60)).shared


@given(st.binary(max_size=200))
def test_other_bytes_are_damage(data: bytes) -> None:
    with pytest.raises(EntryDamaged):
        decode(1, data)


def test_another_version_is_named() -> None:
    entry = make_entry()
    other = bytearray(whole(entry))
    other[3] = 9
    with pytest.raises(EntryDamaged, match="version 9"):
        decode(entry.key.id, bytes(other))


def test_what_has_no_json_form_is_a_store_error() -> None:
    with pytest.raises(StoreError):
        encode(make_entry(tags=("lone surrogate \ud800",)))


def test_an_entry_takes_less_than_a_kilobyte_beside_response_and_canonical_form() -> None:
    entry = make_entry(vector=bytes(2 * 384), fingerprint="f" * 64, ttl=math.pi)
    assert len(whole(entry)) - len(entry.response) - len(entry.key.canonical) < 1000


def test_an_exact_hit_needs_no_numpy(tmp_path: Path) -> None:
    script = """
import sys
from semcache.stores import MemoryStore, SqliteStore
from semcache.types import Entry, Key
entry = Entry(Key(1, 2, b"k", 1), "text", b"{}", "function", "default", None, None, 0.0, vector=bytes(8))
for store in (MemoryStore(), SqliteStore(sys.argv[1])):
    store.put(entry)
    assert store.get(entry.key) == entry
assert "numpy" not in sys.modules
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script, tmp_path / "store.db"], check=True, env=environment)
