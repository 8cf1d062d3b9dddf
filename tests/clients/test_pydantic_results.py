"""A function whose return annotation is a pydantic model gets that model back from the cache."""

from pydantic import BaseModel

from semcache import Policy, SemanticCache, last_outcome


class Reply(BaseModel):
    text: str
    n: int = 0


def answer(prompt: str) -> Reply:
    return Reply(text=prompt)


def unannotated(prompt: str):
    return Reply(text=prompt)


def test_a_result_comes_back_as_its_annotation_says():
    with SemanticCache(store="memory://", policy=Policy(semantic=False)) as cache:
        ask = cache.wrap(answer)
        assert ask("hi") == ask("hi") == Reply(text="hi")
        assert last_outcome().hit


def test_without_an_annotation_it_is_passed_through():
    with SemanticCache(store="memory://", policy=Policy(semantic=False)) as cache:
        ask = cache.wrap(unannotated)
        assert ask("hi") == ask("hi") == Reply(text="hi")
        assert last_outcome().status == "miss"
