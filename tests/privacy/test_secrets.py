"""Secrets are found, and what holds one is neither embedded nor kept."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from secrets_by_kind import INNOCENT, SECRETS

from semcache import ConfigurationError, Policy, SemanticCache, last_outcome
from semcache.embedders import CallableEmbedder
from semcache.keys import make_key
from semcache.privacy import CARD, EMAIL, _luhn, find_secret, mask_secrets
from semcache.types import Request

ALL = [(kind, secret) for kind, secrets in SECRETS.items() for secret in secrets]
KEY = bytes(range(32))
prose = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@pytest.mark.parametrize(("kind", "secret"), ALL)
def test_every_kind_is_found_in_prose_and_in_json(kind: str, secret: str) -> None:
    for text in (secret, f"My key is {secret}, why does it fail?", f"a\n{secret}\nb", f"\t{secret}", f'"{secret}"'):
        assert find_secret(text.encode()) == kind
        assert find_secret(json.dumps(text).encode()) == kind
        assert find_secret(make_key(Request("api", {"system": text}, "hi"), "default", None).canonical) == kind


@pytest.mark.parametrize("text", INNOCENT)
def test_ordinary_texts_are_let_through(text: str) -> None:
    assert find_secret(text.encode()) == ""
    assert find_secret(json.dumps(text).encode()) == ""


@settings(max_examples=150)
@given(prose, st.sampled_from(ALL), prose)
def test_no_surrounding_text_hides_a_secret(before: str, found: tuple[str, str], after: str) -> None:
    assert find_secret(json.dumps(f"{before} {found[1]} {after}", ensure_ascii=False).encode()) != ""


BEGINNINGS = """?key=|&token=a|://a:|://a@|password=|secret="|bearer |sk-a|eyJaaaaaaaa.|SG.|a@b.|@a.b|1234 |4111
-----BEGIN PRIVATE KEY-----|authorization: basic |api_key = |password   """.replace("\n", "|").split("|")


@pytest.mark.parametrize("piece", BEGINNINGS)
def test_no_text_makes_the_search_take_longer_than_its_length(piece: str) -> None:
    """Callers write these texts, and an event loop waits for the search."""

    def seconds(length: int) -> float:
        data = (piece * (length // len(piece))).encode()
        took = []
        for _ in range(3):
            started = time.thread_time()
            find_secret(data, emails=True)
            took.append(time.thread_time() - started)
        return min(took)

    assert seconds(32_000) < 30 * seconds(4_000) + 0.005  # a search of every rest of the text would make it 64


def test_e_mail_addresses_are_secret_by_option() -> None:
    text = b"Write to jane.doe+x@mail.example.com today."
    assert find_secret(text) == ""
    assert find_secret(text, emails=True) == EMAIL
    assert find_secret(b"an @mention, a@b and @dataclass", emails=True) == ""


@given(st.integers(0, 10**14 - 1), st.integers(0, 9))
def test_cards_have_one_right_check_digit(number: int, wrong: int) -> None:
    body = f"4{number:014}"
    right = next(digit for digit in "0123456789" if _luhn(body + digit))
    assert find_secret(f"pay with {body + right}".encode()) == CARD
    if str(wrong) != right:
        assert find_secret(f"pay with {body}{wrong}".encode()) == ""


# Masking


@settings(max_examples=150)
@given(prose, st.sampled_from(ALL), st.sampled_from(ALL), prose)
def test_masked_requests_are_equal_exactly_if_the_requests_are(
    before: str, a: tuple[str, str], b: tuple[str, str], after: str
) -> None:
    one, other = (Request("api", {}, f"{before} {secret} {after}") for _, secret in (a, b))
    masked = [make_key(mask_secrets(request, KEY), "default", None).canonical for request in (one, other)]
    assert (masked[0] == masked[1]) == (a == b)
    assert all(find_secret(canonical) == "" for canonical in masked)


@pytest.mark.parametrize(("kind", "secret"), ALL)
def test_masking_reaches_every_text_and_leaves_the_rest(kind: str, secret: str) -> None:
    scope = {"messages": [{"role": "user", "content": f"it is {secret} ok"}], "n": 1, "f": 0.5, "none": None}
    request = Request("api", scope, f"a {secret} b", history=({"role": "user", "content": secret},))
    masked = mask_secrets(request, KEY)
    assert secret not in repr(masked)
    assert masked.scope["n"] == 1
    assert masked.text is not None
    assert masked.text.startswith("a ")
    if kind != "private key":  # of which one that was cut off has no end
        assert masked.text.endswith(" b")
    assert masked.exact_only
    assert (request.scope, request.history[0]["content"]) == (scope, secret), "the caller's request must stay as it was"


def test_without_the_key_a_mask_tells_nothing() -> None:
    secret = SECRETS[CARD][0]
    texts = {mask_secrets(Request("api", {}, secret), bytes([i]) * 32).text for i in range(8)}
    assert len(texts) == 8


# In the cache


class Embedder:
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, texts):
        self.seen += texts
        return [[1.0, 0.0, 0.0]] * len(texts)


@pytest.fixture
def embedder():
    return Embedder()


@pytest.fixture
def opened(tmp_path, embedder):
    def open_(**policy):
        wrapped = CallableEmbedder(embedder, fingerprint="recording")
        return SemanticCache.open(f"sqlite:///{tmp_path / 'c.db'}", embedder=wrapped, policy=Policy(**policy))

    return open_


def files(tmp_path) -> bytes:
    return b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(("kind", "secret"), ALL)
def test_a_secret_in_the_question_bypasses_and_leaves_no_trace(tmp_path, opened, embedder, kind, secret) -> None:
    with opened() as cache:
        ask = cache.wrap(lambda prompt, **params: "fine", name="ask")
        for _ in range(2):
            assert ask(f"Why is {secret} refused?") == "fine"
            assert (last_outcome().status, last_outcome().reason) == ("bypass", f"secret: {kind}")
        ask("hello", system=f"Use {secret}.")
        assert last_outcome().reason == f"secret: {kind}"
    assert embedder.seen == []
    assert secret.split("\n")[0].encode() not in files(tmp_path)


def test_a_secret_in_an_earlier_turn_bypasses(opened) -> None:
    with opened() as cache:
        history = [{"role": "user", "content": SECRETS["API key"][0]}, {"role": "assistant", "content": "ok"}]
        assert cache.explain([*history, {"role": "user", "content": "and now?"}]).reason == "secret: API key"


@pytest.mark.parametrize("mode", ["bypass", "redact"])
def test_a_secret_in_the_answer_is_handed_on_but_not_kept(tmp_path, opened, mode) -> None:
    secret = SECRETS["API key"][1]
    with opened(secrets=mode) as cache:
        ask = cache.wrap(lambda prompt: f"your key is {secret}", name="ask")
        for _ in range(2):
            assert ask("Make me a key") == f"your key is {secret}"
            assert (last_outcome().status, last_outcome().stored) == ("miss", False)
            assert last_outcome().reason == "secret: API key in the answer"
    assert secret.encode() not in files(tmp_path)


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_secret_that_runs_over_the_chunks_of_a_streamed_answer_is_not_kept(opened, size) -> None:
    answer = f"your key is {SECRETS['API key'][1]}"
    with opened() as cache:

        @cache.wrap
        def ask(prompt):
            yield from (answer[at : at + size] for at in range(0, len(answer), size))

        for _ in range(2):
            assert "".join(ask("Make me a key")) == answer
            assert (last_outcome().status, last_outcome().stored) == ("miss", False)
            assert last_outcome().reason == "secret: API key in the answer"


def test_redacted_requests_match_exactly_and_leave_no_trace(tmp_path, opened, embedder) -> None:
    calls = []
    first, second = SECRETS["API key"][:2]
    with opened(secrets="redact") as cache:
        ask = cache.wrap(lambda prompt: calls.append(prompt) or f"answer {len(calls)}", name="ask")
        assert [ask(f"Is {secret} valid?") for secret in (first, first, second, first)] == [
            "answer 1",
            "answer 1",
            "answer 2",
            "answer 1",
        ]
        assert last_outcome().layer == "exact"
        assert calls[0] == f"Is {first} valid?", "the provider gets what the caller wrote"
    assert embedder.seen == []
    for secret in (first, second):
        assert secret.encode() not in files(tmp_path)


def test_what_cannot_be_masked_is_bypassed(opened) -> None:
    with opened(secrets="redact") as cache:
        request = Request("api", {SECRETS["API key"][0]: 1}, "hi")
        assert cache.explain(request).reason == "secret: API key"


def test_all_may_be_allowed(opened) -> None:
    with opened(secrets="allow") as cache:
        ask = cache.wrap(lambda prompt: "fine", name="ask")
        ask(SECRETS["API key"][0])
        assert last_outcome().stored


def test_the_policy_file_knows_the_options(tmp_path) -> None:
    policy = Policy(secrets="redact", emails_are_secret=True)
    policy.save(tmp_path / "policy.toml")
    assert Policy.load(tmp_path / "policy.toml") == policy
    with pytest.raises(ConfigurationError, match="secrets"):
        replace(policy, secrets="hide")  # type: ignore[arg-type]
