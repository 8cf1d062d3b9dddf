"""The ways of calling LiteLLM, wrapped or not."""

from __future__ import annotations

import inspect
from typing import Any

import litellm

from semcache.testing.upstream import Upstream

litellm.suppress_debug_info = True

QUESTION = "Is it up?"
MESSAGES = [{"role": "user", "content": QUESTION}]
SECRET = "sk-very-secret-0123456789"


class Way:
    """One way of calling LiteLLM, wrapped or not. ``ask`` awaits and collects whatever comes back."""

    def __init__(self, name: str, up: Upstream) -> None:
        self.up = up
        self.is_async = name.startswith("a")
        self.is_router = name.endswith("router")

    def target(self, **settings: Any) -> Any:
        if not self.is_router:
            return litellm.acompletion if self.is_async else litellm.completion
        deployment = {
            "model": "openai/gpt-4o-mini",
            "api_base": self.up.openai_url,
            "api_key": SECRET,
            "max_retries": 0,
        }
        return litellm.Router(
            **{"model_list": [{"model_name": "fast", "litellm_params": deployment}], "num_retries": 0, **settings}
        )

    def arguments(self, **extra: Any) -> dict[str, Any]:
        if self.is_router:
            return {"model": "fast", "messages": MESSAGES, **extra}
        own = {"api_base": self.up.openai_url, "api_key": SECRET, "max_retries": 0}
        return {"model": "openai/gpt-4o-mini", "messages": MESSAGES, **own, **extra}

    async def ask(self, target: Any, **extra: Any) -> Any:
        if self.is_router:
            target = target.acompletion if self.is_async else target.completion
        answer = target(**self.arguments(**extra))
        answer = await answer if inspect.isawaitable(answer) else answer
        if isinstance(answer, litellm.ModelResponse):
            return answer
        return [chunk async for chunk in answer] if self.is_async else list(answer)


def text(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"api_key": {"type": "string"}}, "required": ["api_key"]},
        },
    }
]
