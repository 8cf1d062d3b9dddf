"""The three ways to treat earlier turns, on conversations with labels: how much each hits, and how often wrongly.

Each conversation goes through the real cache (default embedder and guards), in the order of its file. An answer is
the label of the request that it was given to, so a hit is wrong when the label served is not the label of the request.

- ``canard``: questions in context, with the article and section as system message; the label is the question as a
  person made it stand alone. ``rewrite`` uses the person's rewrites: what a perfect rewriter would reach.
- ``canard_alone``: after all of these, every rewrite is asked by itself; only that is counted. Its own answer is in the
  cache, under a conversation.
- ``sgd``: task dialogues, each turn of the user a request; the label is the dialogue state, and the services that the
  assistant has are its system message. ``rewrite`` writes that
  state out as words: again a perfect rewriter.
- ``fow_conv``: pairs of conversations with (nearly) one last message; the first is stored, the second asked.
  ``rewrite`` strings all user turns together, the simplest rewriter there is: no label tells what a good one says.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from benchmarks.rows import emit, provenance, put_table
from semcache import Policy, SemanticCache
from semcache.context import MODES, Context, Turns, alone, loosen, windowed
from semcache.guards import fold
from semcache.intervals import clopper_pearson
from semcache.types import Reply, Request

Messages = list[dict[str, str]]
STRETCH = 512
"""Requests whose texts are embedded together; fewer than the embedding queue remembers."""


class Asked(NamedTuple):
    """One request. ``group`` keeps pairs that have nothing to do with each other apart; ``rewrite`` is the gold one."""

    messages: Messages
    label: str
    group: str | None = None
    rewrite: str | None = None
    counted: bool = True


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        yield from map(json.loads, file)


def plain(messages: Sequence[Mapping[str, Any]]) -> Messages:
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def canard(folder: Path) -> Iterator[Asked]:
    for row in rows(folder / "context" / "canard_dev.jsonl.gz"):
        yield Asked([*plain(row["history"]), user(row["last"])], fold(row["rewrite"]), None, row["rewrite"])


def canard_alone(folder: Path) -> Iterator[Asked]:
    conversations = list(canard(folder))
    yield from (one._replace(counted=False) for one in conversations)
    for one in conversations:
        assert one.rewrite is not None
        yield Asked([one.messages[0], user(one.rewrite)], one.label)


def sgd(folder: Path) -> Iterator[Asked]:
    for row in rows(folder / "chats" / "sgd_dev.jsonl.gz"):
        services = {"role": "system", "content": ", ".join(row["services"])}
        messages = plain(row["messages"])
        for at, message in enumerate(row["messages"]):
            if message["role"] == "user":
                yield Asked([services, *messages[: at + 1]], message["key"], None, spoken(message["state"]))


def fow_conv(folder: Path) -> Iterator[Asked]:
    for row in rows(folder / "chats" / "fow_conv_dev.jsonl.gz"):
        for side in ("a", "b"):
            messages = plain(row[side])
            asked = " ".join(message["content"] for message in messages if message["role"] == "user")
            yield Asked(messages, row["id"] if row["label"] else row["id"] + side, row["id"], asked)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def spoken(state: Sequence[Mapping[str, Any]]) -> str:
    frames = []
    for frame in state:
        slots = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in sorted(frame["slots"].items()))
        wanted = ", ".join(sorted(name.replace("_", " ") for name in frame["requested"]))
        frames.append(f"{frame['service'].split('_')[0]}: {frame['intent']} {slots}; tell me {wanted or 'the result'}")
    return ". ".join(frames) or "Nothing else"


SETS = {"canard": canard, "canard_alone": canard_alone, "sgd": sgd, "fow_conv": fow_conv}


def replay(asked: Sequence[Asked], mode: Context, window: int) -> Counter[str]:
    """Requests, hits and wrong hits, the hits by layer."""
    gold = {orjson.dumps(turns(one.messages)): one.rewrite for one in asked if one.rewrite is not None}

    def rewrite(history: Turns, text: str) -> str:
        return gold[orjson.dumps(turns([*history, user(text)]))]

    policy = Policy(context=mode, window=window, rewrite=rewrite if mode == "rewrite" else None)
    count: Counter[str] = Counter()
    with SemanticCache.open("memory://", policy=policy) as cache:
        assert cache.engine.semantic is not None
        queue = cache.engine.semantic.queue
        for at in range(0, len(asked), STRETCH):
            stretch = [(one, request_of(one)) for one in asked[at : at + STRETCH]]
            texts = [embedded(request, mode, window, one) for one, request in stretch]
            queue.embed_many([text for text in dict.fromkeys(texts) if queue.fits(text)])
            for one, request in stretch:
                with cache.options(tenant=one.group):
                    body = orjson.dumps(one.label)
                    served = cache.engine.run(request, lambda: Reply(None, body))  # noqa: B023
                count["requests"] += one.counted
                if one.counted and served.outcome.hit:
                    count[f"{served.outcome.layer}"] += 1
                    count[f"{served.outcome.layer} wrong"] += served.body != body
                    count["first turn wrong"] += served.body != body and len(turns(one.messages)) == 1
    return count


def turns(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [message for message in messages if message["role"] != "system"]


def request_of(one: Asked) -> Request:
    return Request("bench", {"messages": [*one.messages[:-1], user("$fuzzy")]}, one.messages[-1]["content"])


def embedded(request: Request, mode: Context, window: int, one: Asked) -> str:
    request = loosen(request, mode, window)
    text = request.text or ""
    if not request.history:
        return text
    return windowed(request.history, text, window).embedded if mode == "window" else alone(one.rewrite or text).embedded


def measured(name: str, mode: Context, count: Counter[str]) -> str:
    """One row of the table; the same as JSON goes to standard output."""
    requests, first = count["requests"], count["first turn wrong"]
    hits, wrong = (count[f"exact{end}"] + count[f"semantic{end}"] for end in ("", " wrong"))
    rates = [[wrong / n, *clopper_pearson(wrong, n)] if n else None for n in (hits, requests)]
    emit(
        f"context.{name}.{mode}",
        wrong,
        "wrong hits",
        goal=0 if mode == "exact" else None,
        requests=requests,
        wrong_in_first_turns=first,
        hits=hits,
        exact=count["exact"],
        hit_rate=round(hits / requests, 4),
        false_hit_rate=rates[0] and [round(x, 5) for x in rates[0]],
        unsafe_served_rate=rates[1] and [round(x, 5) for x in rates[1]],
    )
    shown = ["{:.3g} ({:.3g}–{:.3g})".format(*(100 * x for x in one)) if one else "–" for one in rates]
    return f"| {name} | {mode} | {requests:,} | {hits:,} | {wrong:,} | {first:,} | {shown[0]} | {shown[1]} |"


HEAD = """\
| set | context | requests | hits | wrong | of these in first turns | FH, % | USR, % |
| --- | --- | ---: | ---: | ---: | ---: | --- | --- |"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with chats/ and context/")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--window", type=int, default=3)
    parser.add_argument("--write", type=Path, help="put the table between the marks in this file")
    options = parser.parse_args()
    lines = [HEAD]
    for name in options.sets:
        asked = list(SETS[name](options.data))
        lines += [measured(name, mode, replay(asked, mode, options.window)) for mode in options.modes]
    table = "\n".join(lines)
    if options.write:
        put_table(options.write, f"{table}\n\nCommit {provenance()['commit']}, {provenance()['when'][:10]}.")
    print(table, file=sys.stderr)


if __name__ == "__main__":
    main()
