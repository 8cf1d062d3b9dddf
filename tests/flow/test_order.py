"""The order of work, driven by hand: look at what a flow asks for, send an answer, look again."""

from dataclasses import replace

import pytest
from by_hand import EXACT_ONLY, REPLY, VECTOR, Lead, context, drive, entry

from semcache import flow
from semcache.flight import Found, Landed
from semcache.policy import Policy
from semcache.steps import UNREADABLE, CallUpstream, Embed, GetExact, Join, Near, Search, Verify, Write
from semcache.types import Reply, Request, Usage

VERIFIED = Policy(verifier=lambda query, cached: 0.0, verify_from=0.0)


def test_an_exact_hit_asks_for_nothing_else():
    ctx = context()
    answered = drive(flow.call(ctx), (GetExact, entry(ctx)))
    assert answered.body == b'"stored"'
    assert (ctx.outcome.status, ctx.outcome.layer, ctx.outcome.similarity) == ("hit", "exact", 1.0)
    assert ctx.outcome.age_s == 100.0
    assert ctx.outcome.usage == Usage(7, 3)
    assert ctx.outcome.upstream_latency_s == 2.0


def test_a_miss_goes_through_every_layer_and_is_kept():
    ctx, lead, written = context(), Lead(), []
    answered = drive(
        flow.call(ctx),
        (GetExact, None),
        (Join, lead),
        (GetExact, None),
        (Embed, VECTOR),
        (Search, []),
        (CallUpstream, REPLY),
        (Write, lambda step: written.append(step.entry) or True),
    )
    assert answered.value == "value"
    assert answered.body is None
    assert ctx.outcome.stored
    assert ctx.outcome.reason == "no candidate"
    (kept,) = written
    assert (kept.key, kept.response, kept.usage, kept.fingerprint) == (ctx.key, b'"fresh"', Usage(10, 5), "fp")
    assert kept.vector is VECTOR
    assert lead.ended[0] == Landed(b'"fresh"', Usage(10, 5), ctx.outcome.upstream_latency_s)


def test_a_leader_lands_only_after_the_write():
    """Else a caller that comes between finds neither the flight nor the entry, and calls upstream again."""
    ctx, lead = context(policy=EXACT_ONLY), Lead()
    drive(
        flow.call(ctx),
        (GetExact, None),
        (Join, lead),
        (GetExact, None),
        (CallUpstream, REPLY),
        (Write, lambda step: lead.ended == []),
    )
    assert ctx.outcome.stored


def test_a_leader_looks_again_since_another_may_have_landed():
    ctx, lead = context(), Lead()
    answered = drive(flow.call(ctx), (GetExact, None), (Join, lead), (GetExact, entry(ctx)))
    assert answered.body == b'"stored"'
    assert ctx.outcome.hit
    assert lead.ended[0].found.entry.response == b'"stored"'


def test_a_semantic_hit_serves_the_near_entry_and_lands():
    ctx, lead = context(), Lead()
    near = entry(ctx)
    answered = drive(
        flow.call(ctx),
        (GetExact, None),
        (Join, lead),
        (GetExact, None),
        (Embed, VECTOR),
        (Search, [Near(near, 0.999, False)]),
    )
    assert answered.body == b'"stored"'
    assert (ctx.outcome.status, ctx.outcome.layer, ctx.outcome.similarity) == ("hit", "semantic", 0.999)
    assert ctx.outcome.entry_id == near.key.id
    assert ctx.outcome.decision.verdict == "serve"
    assert lead.ended[0].found.entry.response == b'"stored"'


@pytest.mark.parametrize(
    "near", [("How can I reset my password?", 0.5, False), ("How can I reset my password?", 0.999, True)]
)
def test_a_far_or_once_wrong_candidate_is_a_miss_with_its_reason(near):
    ctx = context()
    text, similarity, wrong = near
    drive(
        flow.call(ctx),
        (GetExact, None),
        (Join, Lead()),
        (GetExact, None),
        (Embed, VECTOR),
        (Search, [Near(entry(ctx, text), similarity, wrong)]),
        (CallUpstream, REPLY),
        (Write, True),
    )
    assert ctx.outcome.status == "miss"
    assert ctx.outcome.reason


def test_a_follower_gets_the_leaders_answer_and_is_no_hit():
    ctx = context()
    answered = drive(flow.call(ctx), (GetExact, None), (Join, Landed(b'"shared"', Usage(1, 1), 3.0)))
    assert answered.body == b'"shared"'
    assert ctx.outcome.collapsed
    assert not ctx.outcome.hit
    assert not ctx.outcome.stored


def test_a_follower_of_a_hit_is_a_hit_that_can_be_reported_and_audited():
    first, second, lead = context(), context(), Lead()
    near = Near(entry(first), 0.99, False)
    drive(flow.call(first), (GetExact, None), (Join, lead), (GetExact, None), (Embed, VECTOR), (Search, [near]))
    answered = drive(flow.call(second), (GetExact, None), (Join, lead.ended[0]))
    assert answered.body == b'"stored"'
    outcome = second.outcome
    assert (outcome.status, outcome.layer, outcome.similarity) == ("hit", "semantic", 0.99)
    assert (outcome.entry_id, outcome.collapsed) == (near.entry.key.id, False)
    assert second.found is near.entry


@pytest.mark.parametrize(
    "changes",
    [{"refresh": True}, {"min_similarity": 0.995}, {"policy": Policy(threshold=0.995)}],
    ids=["refresh", "its own bar", "other rules"],
)
def test_a_follower_that_demands_more_of_a_hit_goes_upstream(changes):
    ctx = context(**changes)
    found = Found(entry(ctx), Policy().rules("default"), 0.99, "semantic")
    script = [(Join, Landed(found=found)), (CallUpstream, REPLY)]
    script += [(Embed, VECTOR), (Write, True)]
    answered = drive(flow.call(ctx), *([] if ctx.refresh else [(GetExact, None)]), *script)
    assert answered.value == "value"


def test_a_follower_whose_leader_failed_takes_over():
    ctx, lead = context(policy=EXACT_ONLY), Lead()
    drive(
        flow.call(ctx),
        (GetExact, None),
        (Join, None),
        (Join, lead),
        (GetExact, None),
        (CallUpstream, REPLY),
        (Write, True),
    )
    assert lead.ended[0].body == b'"fresh"'


def test_after_two_failed_leaders_a_follower_goes_alone():
    ctx = context(policy=EXACT_ONLY)
    answered = drive(flow.call(ctx), (GetExact, None), (Join, None), (Join, None), (CallUpstream, REPLY), (Write, True))
    assert answered.value == "value"


def test_an_answer_that_cannot_be_shared_sends_followers_upstream():
    ctx = context(policy=EXACT_ONLY)
    drive(flow.call(ctx), (GetExact, None), (Join, Landed(None)), (CallUpstream, REPLY), (Write, True))


def test_an_upstream_error_fails_the_flight_and_leaves_as_the_same_object():
    ctx, lead, error = context(policy=EXACT_ONLY), Lead(), KeyError("mine")
    steps = flow.call(ctx)
    steps.send(None)
    steps.send(None)
    steps.send(lead)
    assert isinstance(steps.send(None), CallUpstream)
    with pytest.raises(KeyError) as raised:
        steps.throw(error)
    assert raised.value is error
    assert lead.ended == [None]


def test_a_closed_flow_fails_its_flight():
    ctx, lead = context(policy=EXACT_ONLY), Lead()
    steps = flow.call(ctx)
    for answer in (None, None, lead, None):
        steps.send(answer)
    steps.close()
    assert lead.ended == [None]


def test_a_failed_reply_is_neither_shared_nor_kept():
    ctx, lead = context(policy=EXACT_ONLY), Lead()
    failed = Reply("503", None, keep="never", reason="status 503", failed=True)
    answered = drive(flow.call(ctx), (GetExact, None), (Join, lead), (GetExact, None), (CallUpstream, failed))
    assert answered.value == "503"
    assert lead.ended == [None]
    assert ctx.outcome.reason == "status 503"


def test_an_unstorable_reply_is_shared_but_not_kept():
    ctx, lead = context(policy=EXACT_ONLY), Lead()
    cut = REPLY._replace(keep="never", reason="finish_reason length")
    drive(flow.call(ctx), (GetExact, None), (Join, lead), (GetExact, None), (CallUpstream, cut))
    assert lead.ended[0].body == b'"fresh"'
    assert not ctx.outcome.stored
    assert ctx.outcome.reason == "finish_reason length"


def test_an_exact_only_reply_is_kept_without_its_vector():
    ctx, written = context(), []
    drive(
        flow.call(ctx),
        (GetExact, None),
        (Join, Lead()),
        (GetExact, None),
        (Embed, VECTOR),
        (Search, []),
        (CallUpstream, REPLY._replace(keep="exact", reason="tool calls")),
        (Write, lambda step: written.append(step.entry) or True),
    )
    assert written[0].vector is None
    assert written[0].fingerprint is None


def test_a_bypass_touches_nothing():
    ctx = context(bypass="asked for by the caller")
    answered = drive(flow.call(ctx), (CallUpstream, REPLY))
    assert answered.value == "value"
    assert (ctx.outcome.status, ctx.outcome.reason) == ("bypass", "asked for by the caller")


@pytest.mark.parametrize(
    "request_", [Request("api", {}, "hi", temperature=1.5), Request("api", {}, "hi", bypass="n > 1")]
)
def test_the_policy_and_the_codec_can_bypass(request_):
    ctx = context(request_)
    drive(flow.call(ctx), (CallUpstream, REPLY))
    assert ctx.outcome.status == "bypass"


def test_a_refresh_looks_nowhere_but_keeps_in_both_tiers():
    ctx, written = context(refresh=True), []
    drive(
        flow.call(ctx),
        (Join, Lead()),
        (CallUpstream, REPLY),
        (Embed, VECTOR),
        (Write, lambda step: written.append(step.entry) or True),
    )
    assert written[0].vector is VECTOR


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"request": Request("api", {}, None, exact_only="the last message is not the user's")}, "not the user's"),
        ({"policy": EXACT_ONLY}, "exact tier only"),
    ],
)
def test_what_is_kept_to_the_exact_tier_is_not_embedded(changes, reason):
    ctx = context(**changes)
    drive(
        flow.call(ctx),
        (GetExact, None),
        (Join, Lead()),
        (GetExact, None),
        (CallUpstream, REPLY),
        (Write, lambda step: step.entry.vector is None),
    )
    assert reason in ctx.outcome.reason
    assert ctx.outcome.stored


@pytest.mark.parametrize(("answer", "reason"), [(None, "no embedding"), (UNREADABLE, UNREADABLE)])
def test_what_cannot_be_embedded_is_a_miss_kept_in_the_exact_tier(answer, reason):
    ctx = context()
    drive(
        flow.call(ctx),
        (GetExact, None),
        (Join, Lead()),
        (GetExact, None),
        (Embed, answer),
        (CallUpstream, REPLY),
        (Write, lambda step: step.entry.vector is None),
    )
    assert ctx.outcome.reason == reason
    assert ctx.outcome.stored


@pytest.mark.parametrize(("ttl", "expires"), [(None, None), (60.0, 1060.0)])
def test_ttl_is_absolute_from_the_time_of_storing(ttl, expires):
    ctx = context(policy=EXACT_ONLY, ttl=ttl)
    drive(
        flow.store(ctx, REPLY),
        (Write, lambda step: step.entry.expires_at == expires),
    )
    assert ctx.outcome.stored


def test_a_lookup_never_calls_or_writes():
    ctx = context()
    answered = drive(flow.lookup(ctx), (GetExact, None), (Embed, VECTOR), (Search, []))
    assert answered.body is None
    assert ctx.outcome.status == "miss"


def test_explain_judges_far_candidates_too():
    ctx = context()
    far = entry(ctx, "What is the boiling point of nitrogen?")
    explanation = drive(flow.explain(ctx), (GetExact, None), (Embed, VECTOR), (Search, [Near(far, 0.1, False)]))
    assert explanation.status == "miss"
    assert explanation.candidates[0].candidate.similarity == 0.1
    assert explanation.reason


@pytest.mark.parametrize(("score", "status"), [(0.99, "hit"), (0.01, "miss"), (None, "miss")])
def test_a_candidate_in_the_grey_zone_is_served_only_if_the_verifier_is_sure(score, status):
    ctx = context(policy=VERIFIED)
    near = entry(ctx)
    drive(*verified(ctx, near, score), *([(GetExact, near)] if score == 0.99 else []))
    assert ctx.outcome.status == status


@pytest.mark.parametrize("now_there", [None, 950.0], ids=["gone", "another"])
def test_an_entry_that_went_while_it_was_verified_is_not_served(now_there):
    ctx = context(policy=VERIFIED)
    near = entry(ctx)
    current = None if now_there is None else replace(near, created_at=now_there)
    drive(*verified(ctx, near, 0.99), (GetExact, current))
    assert (ctx.outcome.status, ctx.outcome.decision.verdict) == ("miss", "reject")


def verified(ctx, near, score):
    """A look-up that comes to a candidate below the threshold, and what the verifier says of it."""
    found = Near(near, ctx.rules.threshold - 0.001, False)
    return flow.lookup(ctx), (GetExact, None), (Embed, VECTOR), (Search, [found]), (Verify, score)
