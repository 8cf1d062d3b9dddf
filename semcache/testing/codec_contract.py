"""The contract of :class:`~semcache.wire.base.Codec` as tests, over calls that a real client has made.

Subclass :class:`CodecContract` in a test module, or :class:`StreamingCodecContract` for a format that has streams, and
give the calls::

    class TestMyCodec(StreamingCodecContract):
        @pytest.fixture
        def codec(self) -> Codec:
            return MyCodec()

        @pytest.fixture
        def plain(self) -> Recorded:
            return Recorded("/v1/answer", {"model": "m", "question": "Is it up?"}, b'{"answer": "Yes."}')

        @pytest.fixture
        def streamed(self) -> Recorded: ...

Both calls ask the same question of the same model. What only one format has (which fields are transport-only, where
attachments stand, how the SDK joins a stream) is for that format's own tests.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

from semcache.keys import canonical

if TYPE_CHECKING:
    from semcache.types import Request
    from semcache.wire import Codec

Json = dict[str, Any]

_ENDS: Final = ("finish_reason", "stop_reason", "status", "finishReason", "stopReason")
"""The fields by which answers tell how they ended."""
_JUNK: Final[tuple[Any, ...]] = (None, True, 5, "x", "", [], ["x"], [5], [{}], [[]], {}, {"type": 5}, {"content": 5})


class Recorded(NamedTuple):
    """One call as it went over the wire.

    Args:
        path: Of the URL, percent-decoded.
        body: Of the request.
        content: The response's body, without transfer or content encoding.
        query: Of the URL, as edges hand it in: ``&name=value`` for each parameter.
        headers: Of the request, with names in lower case.
    """

    path: str
    body: Mapping[str, Any]
    content: bytes
    query: str = ""
    headers: Mapping[str, str] = {}


class CodecContract:
    """Every test is one promise."""

    @pytest.fixture
    def codec(self) -> Codec:
        raise NotImplementedError

    @pytest.fixture
    def plain(self) -> Recorded:
        """A call that was answered in one piece, to the end."""
        raise NotImplementedError

    def test_it_knows_its_endpoint(self, codec: Codec, plain: Recorded) -> None:
        assert codec.matches("POST", plain.path)
        assert not codec.matches("GET", plain.path)
        assert not codec.matches("POST", plain.path + "/of-next-year")

    def test_what_a_client_sends_is_understood_and_not_changed(self, codec: Codec, plain: Recorded) -> None:
        before = copy.deepcopy(plain.body)
        request = parse(codec, plain)
        assert plain.body == before
        assert request.bypass is None
        assert request.model
        assert not request.stream
        assert canonical(request.scope)

    def test_who_answers_is_part_of_the_scope(self, codec: Codec, plain: Recorded) -> None:
        there = codec.parse(plain.body, upstream="https://elsewhere" + plain.path, headers=_headers(plain))
        assert identity(there) != identity(parse(codec, plain))

    def test_a_field_that_it_has_never_heard_of_is_part_of_the_scope(self, codec: Codec, plain: Recorded) -> None:
        more = plain._replace(body={**plain.body, "aFieldOfNextYear": 1})
        assert identity(parse(codec, more)) != identity(parse(codec, plain))

    def test_what_it_does_not_understand_is_no_exception(self, codec: Codec, plain: Recorded) -> None:
        for name in plain.body:
            for junk in _JUNK:
                body = {**plain.body, name: junk}
                before = copy.deepcopy(body)
                parse(codec, plain._replace(body=body))
                assert body == before
        assert parse(codec, plain._replace(body={})).bypass

    def test_a_whole_answer_is_kept_and_its_tokens_are_counted(self, codec: Codec, plain: Recorded) -> None:
        answer = json.loads(plain.content)
        assert codec.storable(answer).keep != "never"
        usage = codec.usage(answer)
        assert usage is not None
        assert usage.input_tokens > 0
        assert 0 <= usage.cache_read_tokens + usage.cache_write_tokens <= usage.input_tokens
        assert 0 <= usage.reasoning_tokens <= usage.output_tokens

    def test_what_is_no_answer_is_never_kept(self, codec: Codec, plain: Recorded) -> None:
        answer = json.loads(plain.content)
        for other in ({}, {"error": {"message": "no"}}, {"message": "no"}, dict.fromkeys(answer)):
            assert codec.storable(other).keep == "never"
            assert codec.usage(other) is None

    def test_what_an_answer_tells_of_the_caller_is_taken_out_of_a_copy(self, codec: Codec, plain: Recorded) -> None:
        answer = json.loads(plain.content)
        before = copy.deepcopy(answer)
        shared = codec.anonymous(answer)
        assert answer == before
        assert shared is None or codec.anonymous(shared) is None


class StreamingCodecContract(CodecContract):
    """What a format with streams promises besides."""

    @pytest.fixture
    def streamed(self) -> Recorded:
        """The same question as that of ``plain``, answered by a stream that was read to its end, with its usage."""
        raise NotImplementedError

    def test_a_stream_and_a_plain_call_are_one_request(self, codec: Codec, plain: Recorded, streamed: Recorded) -> None:
        assert codec.matches("POST", streamed.path)
        request = parse(codec, streamed)
        assert request.stream
        assert request.bypass is None
        assert identity(request) == identity(parse(codec, plain))

    def test_an_end_that_it_has_never_heard_of_is_not_kept(self, codec: Codec, plain: Recorded) -> None:
        others = list(_other_ends(json.loads(plain.content)))
        assert others, "the answer does not tell how it ended"
        for other in others:
            assert codec.storable(other).keep == "never"

    def test_a_stream_passes_unchanged_and_is_recorded_alike_in_any_split(
        self, codec: Codec, streamed: Recorded
    ) -> None:
        whole = record(codec, streamed, [streamed.content])
        assert whole is not None
        assert codec.storable(whole).keep != "never"
        usage = codec.usage(whole)
        assert usage is not None
        assert usage.output_tokens > 0
        for size in (1, 7, 64):
            split = [streamed.content[at : at + size] for at in range(0, len(streamed.content), size)]
            assert record(codec, streamed, split) == whole

    def test_no_part_of_a_stream_is_taken_for_the_whole(self, codec: Codec, streamed: Recorded) -> None:
        events = list(codec.recorder(streamed.body).feed(streamed.content))
        assert events
        for end in range(len(events)):
            begun = record(codec, streamed, events[:end])
            assert begun is None or codec.storable(begun).keep == "never"

    def test_a_reader_that_walks_away_leaves_no_record(self, codec: Codec, streamed: Recorded) -> None:
        recorder = codec.recorder(streamed.body)
        events = recorder.feed(streamed.content)  # all of it has come, and one event of it is read
        next(events)
        begun = recorder.finish()
        assert begun is None or codec.storable(begun).keep == "never"

    @pytest.mark.parametrize(
        "noise", [b"\n\n", b"data: {\n\n", b"\xff\x00" * 40, b"data: []\n\n", b'data: {"a": 1}\n\n']
    )
    def test_noise_is_passed_on_and_makes_no_record(self, noise: bytes, codec: Codec, streamed: Recorded) -> None:
        assert record(codec, streamed, [noise]) is None
        begun = record(codec, streamed, [streamed.content[:-20], noise])
        assert begun is None or codec.storable(begun).keep == "never"

    def test_what_is_replayed_is_what_was_recorded(self, codec: Codec, streamed: Recorded) -> None:
        answer = record(codec, streamed, [streamed.content])
        assert answer is not None
        assert record(codec, streamed, list(codec.replay(answer, streamed.body))) == answer

    def test_a_plain_answer_can_be_streamed(self, codec: Codec, plain: Recorded, streamed: Recorded) -> None:
        answer = json.loads(plain.content)
        once = record(codec, streamed, list(codec.replay(answer, streamed.body)))
        assert once is not None
        assert codec.storable(once) == codec.storable(answer)
        assert codec.usage(once) == codec.usage(answer)
        assert record(codec, streamed, list(codec.replay(once, streamed.body))) == once


def parse(codec: Codec, call: Recorded) -> Request:
    """A recorded request as an edge has it parsed."""
    return codec.parse(call.body, upstream=f"https://upstream{call.path}{call.query}", headers=_headers(call))


def identity(request: Request) -> tuple[bytes, str | None]:
    """Equal for requests that may share an answer in the exact tier."""
    return canonical(request.scope), request.text


def record(codec: Codec, call: Recorded, chunks: list[bytes]) -> Json | None:
    """The answer that a recorder makes of a stream, which must pass it unchanged."""
    recorder = codec.recorder(call.body)
    passed = [event for chunk in chunks for event in recorder.feed(chunk)]
    assert b"".join([*passed, recorder.flush()]) == b"".join(chunks)
    return recorder.finish()


def _headers(call: Recorded) -> dict[str, str]:
    return {**call.headers, ":path": call.path}


def _other_ends(answer: Any) -> Iterator[Any]:
    """The answer with another end, once for each place where it tells how it ended."""
    for at, value in enumerate(answer) if isinstance(answer, list) else list(answer.items()):
        if isinstance(value, (dict, list)):
            others = _other_ends(value)
        else:
            others = iter(["of_next_year"] if at in _ENDS and isinstance(value, str) else [])
        for other in others:
            changed = copy.copy(answer)
            changed[at] = other
            yield changed
