"""LiteLLM, in its own environment."""

from __future__ import annotations

from typing import Any, ClassVar

import litellm
from matrix_cells import Content
from matrix_face import PARAMETERS, Driver, Lift, settled

litellm.suppress_debug_info = True


class LiteLLM(Driver):
    """``litellm.completion`` and ``acompletion``, over OpenAI's Chat Completions."""

    wanted: ClassVar = {
        "text": {},
        "tools": {
            "tools": [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}],
            "tool_choice": "required",
        },
        "structured": {"response_format": Lift},
    }

    def client(self) -> Any:
        return litellm.acompletion if self.is_async else litellm.completion

    def deployment(self) -> dict[str, Any]:
        return {"model": "openai/gpt-4o-mini", "api_base": self.up.openai_url, "api_key": "key", "max_retries": 0}

    async def ask(self, client: Any, text: str, content: Content, stream: bool) -> Any:
        return await self.answer(client, stream, **{**self.deployment(), **self.asked(text, content)})

    def asked(self, text: str, content: Content) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": text}], **self.wanted[content]}

    async def answer(self, call: Any, stream: bool, **asked: Any) -> Any:
        if not stream:
            return await settled(call(**asked))
        # Where the usage is not asked for, LiteLLM's own streams carry a hidden one of no tokens.
        chunks = await self.collected(call(**asked, stream=True, stream_options={"include_usage": True}))
        return litellm.stream_chunk_builder(chunks)


class Router(LiteLLM):
    """A ``litellm.Router`` of one deployment."""

    def client(self) -> Any:
        models = [{"model_name": "fast", "litellm_params": self.deployment()}]
        return litellm.Router(model_list=models, num_retries=0)

    async def ask(self, client: Any, text: str, content: Content, stream: bool) -> Any:
        call = client.acompletion if self.is_async else client.completion
        return await self.answer(call, stream, model="fast", **self.asked(text, content))
