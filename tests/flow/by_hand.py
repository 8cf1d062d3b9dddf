"""What it takes to drive a flow by hand: a call, a stored entry, a script of steps and answers."""

import numpy as np
import pytest

from semcache import flow
from semcache.keys import make_key
from semcache.policy import Policy
from semcache.types import Entry, Outcome, Reply, Request, Usage

VECTOR = np.eye(1, 8, dtype=np.float32)[0]
REPLY = Reply("value", b'"fresh"', Usage(10, 5))
EXACT_ONLY = Policy(semantic=False)


class Lead:
    """Records how its flight ended."""

    def __init__(self):
        self.ended = []

    def land(self, answer):
        self.ended.append(answer)

    def fail(self):
        self.ended.append(None)


def context(request=None, **changes):
    request = request or Request("api", {"model": "m"}, "How do I reset my password?", model="m")
    key = make_key(request, "default", None)
    ticks = iter(range(1000))
    settings = {
        "request": request,
        "key": key,
        "outcome": Outcome("miss", request=request, key=key),
        "policy": Policy(),
        "namespace": "default",
        "tenant": None,
        "now": lambda: 1000.0,
        "tick": lambda: float(next(ticks)),
        "started": 0.0,
        "fingerprint": lambda: "fp",
    }
    settings |= changes
    return flow.Call(rules=settings["policy"].rules(settings["namespace"]), **settings)


def entry(ctx, text="How can I reset my password?", **changes):
    key = make_key(Request("api", {"model": "m"}, text), "default", None)
    return Entry(
        key=key, text=text, response=b'"stored"', api="api", namespace="default", tenant=None, model="m",
        created_at=900.0, usage=Usage(7, 3), latency_s=2.0, vector=VECTOR, fingerprint="fp", **changes,
    )  # fmt: skip


def drive(steps, *script):
    """Check the kinds of the steps a flow asks for, sending each answer; return what it returned."""
    answer = None
    for kind, reply in script:
        step = steps.send(answer)
        assert type(step) is kind, f"{step} where {kind.__name__} was expected"
        answer = reply(step) if callable(reply) and not isinstance(reply, (Lead, type)) else reply
    with pytest.raises(StopIteration) as stop:
        steps.send(answer)
    return stop.value.value
