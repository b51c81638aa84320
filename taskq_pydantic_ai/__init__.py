"""taskq for Pydantic AI: run an agent as a durable task, which continues after a deploy or a crash.

::

    @taskq.task(timeout=300)
    async def answer(context: TaskContext, question: str) -> str:
        result = await run_agent(context, agent, question, usage_limits=UsageLimits(request_limit=20))
        return result.output

Each request to the model and each call of a tool is a step: its result is stored, and a later run of the task uses it
instead of asking again. The text of the model is emitted while it is generated. A tool call that needs approval ends
the run until a person has answered. Cancelling the task cancels the request to the model.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter
from pydantic_ai import (
    Agent,
    AgentRunResult,
    ApprovalRequired,
    CallDeferred,
    DeferredToolRequests,
    DeferredToolResults,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelResponse,
    ModelRetry,
    ModelSettings,
    PartDeltaEvent,
    PartStartEvent,
    RunContext,
    RunUsage,
    TextPart,
    TextPartDelta,
    ToolCallPart,
    ToolDenied,
    ToolFailed,
    ToolReturn,
)
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.models import CompletedStreamedResponse, Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool, WrapperToolset
from pydantic_core import to_jsonable_python

from taskq_core import TaskContext

__all__ = ["run_agent"]

Approve = Callable[[TaskContext, ToolCallPart], Awaitable[bool | ToolDenied]]
"""Decides about a tool call that needs approval. It may end the run until a person has answered."""
_TOOL_RETURN: TypeAdapter[ToolReturn[Any]] = TypeAdapter(ToolReturn[Any])


async def _approve_by_signal(context: TaskContext, call: ToolCallPart) -> bool | ToolDenied:
    answer: bool | str = await context.areceive(f"approve {call.tool_name}", bool | str)
    return answer if isinstance(answer, bool) else ToolDenied(answer)


async def run_agent(
    context: TaskContext,
    agent: Agent[Any, Any],
    prompt: str,
    *,
    approve: Approve = _approve_by_signal,
    without_step: Collection[str] = (),
    emit_text: bool = True,
    **options: Any,
) -> AgentRunResult[Any]:
    """Run an agent in steps of the task, and return its result.

    Args:
        context: The context of the running task.
        agent: The agent.
        prompt: The prompt of the user.
        approve: Decides about each tool call that needs approval, one after the other. By default, the task waits for
            the signal `approve <name of the tool>`: True, False, or the reason of a refusal as text.
        without_step: Names of tools that run outside of steps, so that they can use the context themselves. They run
            again in each run of the task.
        emit_text: Emit the text of the model while it is generated, which needs a model that can stream.
        **options: Options of `agent.run`, such as `deps`, `usage_limits` or `message_history`. The usage limits apply
            to the whole task, not to one run of it.

    Raises:
        StepError: A response of the model or the result of a tool is too large.
        UsageLimitExceeded: A usage limit is exceeded. The task is retried unless you raise `SkipRetry` instead.
    """
    steps = _AgentSteps(context, without_step=without_step, emit_text=emit_text)
    options["capabilities"] = [*options.get("capabilities", ()), steps]
    options["output_type"] = [options.get("output_type", agent.output_type), DeferredToolRequests]
    options.setdefault("usage", RunUsage())
    result = await agent.run(prompt, **options)
    while isinstance(result.output, DeferredToolRequests):
        results = DeferredToolResults()
        for call in result.output.approvals:
            results.approvals[call.tool_call_id] = await approve(context, call)
        for call in result.output.calls:
            results.calls[call.tool_call_id] = await context.areceive(f"result {call.tool_name}")
        options["message_history"] = result.all_messages()
        result = await agent.run(deferred_tool_results=results, **options)
    return result


@dataclass
class _AgentSteps(AbstractCapability[Any]):
    """A capability that makes each request to the model and each tool call of an agent a step of a task."""

    context: TaskContext
    without_step: Collection[str]
    emit_text: bool

    def get_wrapper_model(self, model: Model) -> Model:
        return _StepModel(model, self)

    def get_wrapper_toolset(self, toolset: AbstractToolset[Any]) -> AbstractToolset[Any]:
        return _StepToolset(toolset, steps=self)


class _StepModel(WrapperModel):
    def __init__(self, wrapped: Model, steps: _AgentSteps) -> None:
        super().__init__(wrapped)
        self._steps = steps

    async def request(
        self, messages: list[ModelMessage], model_settings: ModelSettings | None, parameters: ModelRequestParameters
    ) -> ModelResponse:
        async def ask() -> list[Any]:
            if self._steps.emit_text:
                async with self.wrapped.request_stream(messages, model_settings, parameters) as stream:
                    async for event in stream:
                        await self._emit(event)
                response = stream.get()
            else:
                response = await self.wrapped.request(messages, model_settings, parameters)
            stored: list[Any] = ModelMessagesTypeAdapter.dump_python([response], mode="json")
            return stored

        [response] = ModelMessagesTypeAdapter.validate_python(await self._steps.context.astep("model", ask))
        assert isinstance(response, ModelResponse)
        return response

    async def _emit(self, event: object) -> None:
        text = ""
        if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
            text = event.part.content
        elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
            text = event.delta.content_delta
        if text:
            await self._steps.context.aemit(text)

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncIterator[StreamedResponse]:
        response = await self.request(messages, model_settings, parameters)
        yield CompletedStreamedResponse(response, model_request_parameters=parameters, replay_events=True)


@dataclass
class _StepToolset(WrapperToolset[Any]):
    steps: _AgentSteps = field(kw_only=True)

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        async def call() -> dict[str, Any]:
            try:
                result = await self.wrapped.call_tool(name, tool_args, ctx, tool)
            except (ModelRetry, ToolFailed) as error:  # Pydantic AI sends the error text to the model
                return {type(error).__name__: error.message}
            except (ApprovalRequired, CallDeferred) as error:  # Pydantic AI ends the run until a person has answered
                return {type(error).__name__: error.metadata, "kind": getattr(error, "kind", None)}
            if isinstance(result, ToolReturn):
                return {"return": _TOOL_RETURN.dump_python(result, mode="json")}
            return {"value": to_jsonable_python(result)}

        if name in self.steps.without_step:
            return await self.wrapped.call_tool(name, tool_args, ctx, tool)
        step = re.sub(r"[\x00-\x1f\x7f#:]", "-", f"{name} {ctx.tool_call_id}")[:100]
        stored = await self.steps.context.astep(step, call)
        for error in (ModelRetry, ToolFailed, ApprovalRequired, CallDeferred):
            if error.__name__ in stored:
                more = {"kind": stored["kind"]} if stored.get("kind") else {}
                raise error(stored[error.__name__], **more)
        return _TOOL_RETURN.validate_python(stored["return"]) if "return" in stored else stored["value"]
