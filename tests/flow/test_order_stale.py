"""The order of work where the upstream fails and an expired answer may stand in."""

import pytest
from by_hand import EXACT_ONLY, Lead, context, drive, entry

from semcache import flow
from semcache.flight import Found, Landed
from semcache.policy import Policy
from semcache.steps import CallUpstream, GetExact, GetStale, Join
from semcache.types import Reply, Request

STALE = Policy(semantic=False, stale_if_error=60.0)
OUTAGE = Reply("503", None, keep="never", reason="status 503", failed=True, outage=True)


def expired(ctx):
    return entry(ctx, expires_at=990.0)


def failing(ctx, lead, error):
    """A flow that has just been told how its upstream failed, and the step that it asks for then."""
    steps = flow.call(ctx)
    for answer in (None, None, lead, None):
        steps.send(answer)
    return steps, steps.throw(error)


def test_an_expired_answer_is_served_for_an_exception():
    ctx, lead = context(policy=STALE), Lead()
    steps, step = failing(ctx, lead, TimeoutError())
    assert (type(step), step.stale_s) == (GetStale, 60.0)
    answered = drive_on(steps, expired(ctx))
    assert answered.body == b'"stored"'
    assert (ctx.outcome.status, ctx.outcome.layer, ctx.outcome.reason) == (
        "stale",
        "exact",
        "upstream raised TimeoutError",
    )
    assert ctx.outcome.ttl_s == -10.0
    assert lead.ended[0].found.stale == "upstream raised TimeoutError"


def drive_on(steps, answer):
    with pytest.raises(StopIteration) as stop:
        steps.send(answer)
    return stop.value.value


def test_an_expired_answer_is_served_for_a_status_5xx():
    ctx, lead = context(policy=STALE), Lead()
    answered = drive(
        flow.call(ctx),
        (GetExact, None),
        (Join, lead),
        (GetExact, None),
        (CallUpstream, OUTAGE),
        (GetStale, expired(ctx)),
    )
    assert answered.body == b'"stored"'
    assert ctx.outcome.status == "stale"


def test_without_an_expired_answer_the_failure_is_handed_on():
    ctx, lead, error = context(policy=STALE), Lead(), TimeoutError()
    steps, _ = failing(ctx, lead, error)
    with pytest.raises(TimeoutError) as raised:
        steps.send(None)
    assert raised.value is error
    assert lead.ended == [None]
    ctx = context(policy=STALE)
    answered = drive(
        flow.call(ctx), (GetExact, None), (Join, Lead()), (GetExact, None), (CallUpstream, OUTAGE), (GetStale, None)
    )
    assert answered.value == "503"


class RateLimited(Exception):
    status_code = 429


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"policy": EXACT_ONLY}, TimeoutError()),
        ({"policy": STALE}, RateLimited()),
        ({"policy": Policy(semantic=False, mode="shadow", stale_if_error=60.0)}, TimeoutError()),
        ({"policy": STALE, "refresh": True}, TimeoutError()),
        ({"policy": STALE, "request": Request("api", {}, "What time is it now?")}, TimeoutError()),
    ],
    ids=["not asked for", "4xx", "shadow", "refresh", "about now"],
)
def test_nothing_expired_is_looked_for(changes, error):
    ctx = context(**changes)
    steps = flow.call(ctx)
    step = steps.send(None)
    while not isinstance(step, CallUpstream):
        step = steps.send(Lead() if isinstance(step, Join) else None)
    with pytest.raises(type(error)):
        steps.throw(error)


def test_a_follower_gets_the_expired_answer_of_its_leader():
    ctx = context(policy=STALE)
    landed = Landed(found=Found(expired(ctx), ctx.rules, stale="status 503"))
    answered = drive(flow.call(ctx), (GetExact, None), (Join, landed))
    assert answered.body == b'"stored"'
    assert (ctx.outcome.status, ctx.outcome.reason) == ("stale", "status 503")
