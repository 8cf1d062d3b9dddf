from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from sdk_streams import cut

from semcache.wire import _sse
from semcache.wire._json import loads_object

STREAM = (
    b"\xef\xbb\xbfdata: one\r\n\r\n"
    b": a comment\n\n"
    b"event: two\ndata: a\ndata:b\nretry: 10\nid: 7\n\n"
    b"data: \xe2\x80\xa8 \xf0\x9f\x98\x80\r\r"
    b"data\n\n"
)
EVENTS = [("", b"one"), ("", b""), ("two", b"a\nb"), ("", "\u2028 😀".encode()), ("", b"")]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_any_split_gives_the_same_events_and_loses_no_byte(sizes: list[int]) -> None:
    splitter = _sse.Splitter()
    events = [event for chunk in cut(STREAM + b"data: torn", sizes) for event in splitter.feed(chunk)]
    assert [(e.name, e.data) for e in events if e.raw.strip()] == EVENTS
    assert b"".join(e.raw for e in events) + splitter.rest() == STREAM + b"data: torn"


def test_a_splitter_that_is_left_in_the_middle_goes_on_after_the_event_it_gave() -> None:
    splitter = _sse.Splitter()
    first = next(splitter.feed(b"data: 1\n\ndata: 2\n\ndata"))
    assert first.data == b"1"
    assert [e.data for e in splitter.feed(b": 3\n\n")] == [b"2", b"3"]


@given(st.text(), st.sampled_from([None, "ping"]))
def test_what_is_written_reads_back(text: str, name: str | None) -> None:
    (event,) = _sse.Splitter().feed(_sse.write({"text": text}, name))
    assert (event.name, loads_object(event.data)) == (name or "", {"text": text})
