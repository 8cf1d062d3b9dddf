"""Labels by judge: whoever can say whether the answer to a stored question serves the question asked.

A judge is any function ``judge(asked, stored)`` that gives a probability, a truth value, or ``None`` for "cannot
say": a verifier is one. It is asked only of semantic hits that no label tells of, once a pair of texts, after the
replay, so that what it will cost can be shown before.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from semcache.cache import SemanticCache
from semcache.errors import ConfigurationError, MissingExtraError
from semcache.guards import fold
from semcache.money.prices import Prices
from semcache.policy import Policy
from semcache.tuning.findings import regraded
from semcache.tuning.pairs import read_pairs
from semcache.verifiers.llm import prompt_for, usage_of, yes_or_no

if TYPE_CHECKING:
    from semcache.stores.base import Store
    from semcache.tuning.replay import Played, Replay

Judge = Callable[[str, str], "float | bool | None"]

_AT_ONCE: Final = 8


class Cost(NamedTuple):
    """What a judge will cost, roughly.

    Args:
        tokens: Rather too many; ``None`` where it is not told in tokens.
        usd_micro: ``None`` where no price is known.
    """

    calls: int
    tokens: int | None = None
    usd_micro: int | None = None


class LLMJudge:
    """Asks a language model what :class:`~semcache.verifiers.LLMVerifier` asks; no answer to that is no label.

    Args:
        ask: Takes a prompt and gives the answer: any wrapped function or client behind one.
        model: For its price.
    """

    def __init__(self, ask: Callable[[str], str], model: str, prices: Prices | None = None) -> None:
        self._ask = ask
        self._model = model
        self._prices = prices or Prices()

    def __call__(self, asked: str, stored: str) -> bool | None:
        return yes_or_no(self._ask(prompt_for(asked, stored)))

    def cost(self, pairs: Sequence[tuple[str, str]]) -> Cost:
        """Before it is asked."""
        usages = [usage_of(prompt_for(*pair)) for pair in pairs]
        prices = [self._prices.cost(self._model, usage) for usage in usages]
        known = [price for price in prices if price is not None]
        tokens = sum(usage.input_tokens + usage.output_tokens for usage in usages)
        return Cost(len(pairs), tokens, sum(known) if len(known) == len(pairs) else None)


class FileJudge:
    """Knows the pairs of files that ``semcache label`` wrote, or of any like them.

    Raises:
        InputError: A file cannot be read or holds no pairs.
    """

    def __init__(self, paths: Iterable[str | PathLike[str]]) -> None:
        self._right = {(fold(pair.a), fold(pair.b)): pair.right for pair in read_pairs(paths)}

    def __call__(self, asked: str, stored: str) -> bool | None:
        a, b = fold(asked), fold(stored)
        right = self._right.get((a, b))
        return self._right.get((b, a)) if right is None else right


def load_judge(name: str) -> Judge:
    """The judge called ``module:function``.

    Raises:
        ConfigurationError: There is none, or it cannot be called.
    """
    module, _, function = name.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"there is no judge {name!r}, which must be module:function: {error}") from error
    if not callable(found):
        raise ConfigurationError(f"{name!r} is no function of two texts")
    judge: Judge = found
    return judge


def unknown_pairs(replays: Iterable[Replay]) -> list[tuple[str, str]]:
    """Texts of the hits that no label tells of, each pair once."""
    return list(dict.fromkeys(_texts(one) for replay in replays for one in replay.played if _unknown(one)))


def cost_of(judge: Judge, pairs: Sequence[tuple[str, str]]) -> Cost:
    """What a judge says it will cost: a method ``cost(pairs)``, which not every judge has."""
    cost = getattr(judge, "cost", None)
    found = Cost(len(pairs)) if cost is None else cost(pairs)
    assert isinstance(found, Cost)
    return found


def ask_judge(
    judge: Judge, pairs: Sequence[tuple[str, str]], progress: Callable[[int], object] = lambda done: None
) -> dict[tuple[str, str], bool | None]:
    """Whether the second text's answer serves the first, for each pair; a probability counts from one half on.

    A few are asked at once, in threads. What the judge raises passes through.
    """
    found: dict[tuple[str, str], bool | None] = {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for pair, said in zip(pairs, pool.map(lambda pair: judge(*pair), pairs), strict=True):
            found[pair] = None if said is None else float(said) >= 0.5
            progress(1)
    return found


def judged(replay: Replay, verdicts: dict[tuple[str, str], bool | None]) -> Replay:
    """The replay with its unlabelled hits graded by a judge. An exact hit is right: it is the same question."""
    return regraded(replay, lambda one: verdicts.get(_texts(one)) if _unknown(one) else True)


def _unknown(one: Played) -> bool:
    return one.layer == "semantic" and one.wrong is None


def _texts(one: Played) -> tuple[str, str]:
    return one.asked or "", one.stored or ""


@contextmanager
def openai_judge(model: str, store: Store) -> Iterator[LLMJudge]:
    """A model behind the OpenAI client, which reads ``OPENAI_API_KEY`` and ``OPENAI_BASE_URL``.

    The client is wrapped, so that a question is asked and paid for once, also over several runs.

    Args:
        store: Where its answers are kept; closed in the end.

    Raises:
        MissingExtraError: The package openai is not installed.
        ConfigurationError: There is no key.
    """
    try:
        import openai
    except ImportError as error:
        raise MissingExtraError("openai", "openai") from error
    try:
        client = openai.OpenAI()
    except openai.OpenAIError as error:
        raise ConfigurationError(f"no judge: {error}") from error
    with client, SemanticCache(store=store, policy=Policy(semantic=False), tenant="judge") as cache:
        wrapped = cache.wrap(client)

        def ask(prompt: str) -> str:
            answer = wrapped.chat.completions.create(model=model, messages=[{"role": "user", "content": prompt}])
            return answer.choices[0].message.content or ""

        yield LLMJudge(ask, model)
