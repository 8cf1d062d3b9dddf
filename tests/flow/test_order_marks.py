"""The order of work around marks for the provider's prompt cache."""

import pytest
from by_hand import EXACT_ONLY, REPLY, Lead, context, drive, entry

from semcache import flow
from semcache.prompt_cache import Plan
from semcache.steps import CallUpstream, GetExact, Join, Marked, MarkPrompt, Reconcile, Refused, Write
from semcache.types import Marks, Prompt, Reply

PROMPT = Prompt("anthropic", {"model": "m"}, "api.anthropic.com", "m")
MARKED = Marked({"model": "m", "marked": True}, Marks(reason="pays"), "anthropic/m", Plan(""), None, 40, 1000.0)


def test_a_miss_is_marked_before_it_is_sent_and_reconciled_after():
    ctx, seen = context(policy=EXACT_ONLY, prompt=PROMPT), []
    drive(
        flow.call(ctx),
        (GetExact, None),
        (Join, Lead()),
        (GetExact, None),
        (MarkPrompt, lambda step: MARKED),
        (CallUpstream, lambda step: seen.append(step.body) or REPLY),
        (Reconcile, lambda step: seen.append(step.usage)),
        (Write, True),
    )
    assert seen == [MARKED.body, REPLY.usage]
    assert (ctx.outcome.marks, ctx.outcome.expected_read_tokens) == (MARKED.marks, 40)


def test_a_hit_and_a_bypass_are_not_marked():
    drive(flow.call(context(prompt=PROMPT)), (GetExact, entry(context())))
    drive(flow.call(context(prompt=PROMPT, bypass="asked for by the caller")), (CallUpstream, REPLY))


@pytest.mark.parametrize("marked", [None, MARKED], ids=["no prompt cache", "failed"])
def test_nothing_is_reconciled_without_marks_or_without_an_answer(marked):
    ctx = context(policy=EXACT_ONLY, prompt=PROMPT)
    failed = Reply("503", None, keep="never", reason="status 503", failed=True)
    drive(
        flow.call(ctx),
        (GetExact, None),
        (Join, Lead()),
        (GetExact, None),
        (MarkPrompt, lambda step: marked),
        (CallUpstream, failed),
    )
    assert ctx.outcome.marks is None


SAID = "system.0.cache_control: Extra inputs are not permitted"
REFUSED = Reply("400", None, keep="never", reason="status 400", failed=True, refusal=SAID)


class Raised(Exception):
    """As the SDKs raise, and LiteLLM."""

    status_code = 400


def sent_with_marks(ctx, refused):
    """A marked call up to its refusal."""
    return (
        (GetExact, None),
        (Join, Lead()),
        (GetExact, None),
        (MarkPrompt, lambda step: MARKED),
        (CallUpstream, refused),
    )


def test_a_prompt_is_sent_again_where_its_marks_are_at_fault():
    ctx, seen = context(policy=EXACT_ONLY, prompt=PROMPT), []
    drive(
        flow.call(ctx),
        *sent_with_marks(ctx, REFUSED),
        (Refused, lambda step: seen.append(step.said) or True),
        (CallUpstream, lambda step: seen.append(step.body) or REPLY),
        (Write, True),
    )
    assert seen == [SAID, None]
    assert ctx.outcome.marks is None


def test_a_refusal_that_is_not_about_marks_is_the_callers():
    ctx = context(policy=EXACT_ONLY, prompt=PROMPT)
    answered = drive(flow.call(ctx), *sent_with_marks(ctx, REFUSED), (Refused, False))
    assert answered.value == "400"


@pytest.mark.parametrize("about_marks", [True, False])
def test_an_exception_is_judged_like_a_reply(about_marks):
    ctx, error = context(policy=EXACT_ONLY, prompt=PROMPT), Raised(SAID)
    steps = flow.call(ctx)
    step = next(steps)
    for kind, answer in sent_with_marks(ctx, None)[:-1]:
        assert isinstance(step, kind)
        step = steps.send(answer(step) if callable(answer) else answer)
    step = steps.throw(error)
    assert isinstance(step, Refused)
    assert step.said == SAID
    if about_marks:
        assert steps.send(True) == CallUpstream()
    else:
        with pytest.raises(Raised) as raised:
            steps.send(False)
        assert raised.value is error
