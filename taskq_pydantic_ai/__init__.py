"""taskq for Pydantic AI: run an agent as a durable task, which continues after a deploy or a crash.

::

    @taskq.task(timeout=300)
    async def answer(context: TaskContext, question: str) -> str:
        result = await run_agent(context, agent, question, usage_limits=UsageLimits(request_limit=20))
        return result.output

Each request to the model and each call of a tool is a step: its result is stored, and a later run of the task uses it
instead of asking again. The text of the model is emitted while it is generated. A tool call that needs approval ends
the run until a person has answered. Cancelling the task cancels the request to the model.

The names of the steps contain the name of the agent and the number of its run in the task, so that no agent gets the
stored results of another one, whichever agents run at the same time or are added to the code later.
"""

import hashlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

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
from taskq_core.errors import StepError
from taskq_core.execution.steps import has_result

__all__ = ["Decision", "run_agent"]

Approve = Callable[[TaskContext, ToolCallPart], Awaitable[bool | ToolDenied]]
"""Decides about a tool call that needs approval. It may end the run until a person has answered."""
_TOOL_RETURN: TypeAdapter[ToolReturn[Any]] = TypeAdapter(ToolReturn[Any])


_NAME_CHARS = 100
"""Maximum length of the name of a step."""


@dataclass
class Decision:
    """The answer of a person about a tool call. `True` and `False` are short for it.

    Attributes:
        approved: Whether the tool may be called.
        reason: Why not, for the model.
    """

    approved: bool
    reason: str = ""


@dataclass
class _Runs:
    """The agents of one run of a task.

    Attributes:
        counts: Number of runs of each agent so far, by name.
        open: Names of the agents that run now.
        has_old_names: Whether the record of the task has the names of an earlier release: `model`, `model#2`, and so
            on. Reading them ends with release 0.3.
    """

    has_old_names: bool
    counts: Counter[str] = field(default_factory=Counter)
    open: set[str] = field(default_factory=set)


_runs: WeakKeyDictionary[TaskContext, _Runs] = WeakKeyDictionary()


@asynccontextmanager
async def _named(context: TaskContext, name: str) -> AsyncIterator[str]:
    """Return the first part of the names of an agent's steps, "" for the names of an earlier release.

    Raises:
        StepError: An agent with this name runs at the same time.
    """
    name = re.sub(r"[\x00-\x1f\x7f#:/]", "-", name)
    if context not in _runs:
        has_old_names = await has_result(context, "model") and not await has_result(context, f"{name} model")
        _runs.setdefault(context, _Runs(has_old_names))
    runs = _runs[context]
    if runs.has_old_names:
        yield ""
        return
    if name in runs.open:
        problem = f"agent {name!r} runs in this task already, so the steps of both runs would be mixed up"
        raise StepError(f"{problem}; give each run its own name: run_agent(..., name=...)", is_final=True)
    runs.counts[name] += 1
    runs.open.add(name)
    try:
        yield name if runs.counts[name] == 1 else f"{name}/{runs.counts[name]}"
    finally:
        runs.open.discard(name)


def _step_name(*parts: str) -> str:
    """Return the name of a step or a wait. A long name is shortened, and stays unique."""
    name = re.sub(r"[\x00-\x1f\x7f#:]", "-", " ".join(filter(None, parts)))
    if len(name) <= _NAME_CHARS:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
    return f"{name[: _NAME_CHARS - len(digest) - 1]} {digest}"


async def _ask(context: TaskContext, agent: str, call: ToolCallPart) -> bool | ToolDenied:
    """Ask people whether the tool may be called."""
    if not agent:
        value: bool | str = await context.areceive(f"approve {call.tool_name}", bool | str)
        return value if isinstance(value, bool) else ToolDenied(value)
    asked = {"agent": agent, "tool": call.tool_name, "arguments": call.args_as_dict()}
    answer = await context.areceive(_step_name(agent, "approve", call.tool_name), Decision, ask=asked)
    return ToolDenied(answer.reason) if answer.reason and not answer.approved else answer.approved


async def run_agent(
    context: TaskContext,
    agent: Agent[Any, Any],
    prompt: str,
    *,
    name: str | None = None,
    approve: Approve | None = None,
    without_step: Collection[str] = (),
    emit_text: bool = True,
    **options: Any,
) -> AgentRunResult[Any]:
    """Run an agent in steps of the task, and return its result.

    Args:
        context: The context of the running task.
        agent: The agent.
        prompt: The prompt of the user.
        name: Name of the agent in the names of the steps, by default `agent.name`. Later runs of the same task need the
            same name. Runs of agents at the same time, for example in `asyncio.gather`, need different names.
        approve: Decides about each tool call that needs approval, one after the other. By default, the task asks the
            question `<name> approve <name of the tool>`, with the arguments of the call, and gets a `Decision`.
        without_step: Names of tools that run outside of steps, so that they can use the context themselves. They run
            again in each run of the task.
        emit_text: Emit the text of the model while it is generated, which needs a model that can stream.
        **options: Options of `agent.run`, such as `deps`, `usage_limits` or `message_history`. The usage limits apply
            to the whole task, not to one run of it.

    Raises:
        StepError: A response of the model or the result of a tool is too large, or an agent with this name runs in the
            task at the same time.
        UsageLimitExceeded: A usage limit is exceeded. The task is retried unless you raise `SkipRetry` instead.
    """
    async with _named(context, name or agent.name or "agent") as label:
        steps = _AgentSteps(context, label, without_step=without_step, emit_text=emit_text)
        return await _run(agent, prompt, steps, approve, options)


async def _run(
    agent: Agent[Any, Any], prompt: str, steps: "_AgentSteps", approve: Approve | None, options: dict[str, Any]
) -> AgentRunResult[Any]:
    context = steps.context
    options["capabilities"] = [*options.get("capabilities", ()), steps]
    options["output_type"] = [options.get("output_type", agent.output_type), DeferredToolRequests]
    options.setdefault("usage", RunUsage())
    result = await agent.run(prompt, **options)
    while isinstance(result.output, DeferredToolRequests):
        results = DeferredToolResults()
        for call in result.output.approvals:
            decision = await (_ask(context, steps.agent, call) if approve is None else approve(context, call))
            results.approvals[call.tool_call_id] = decision
        for call in result.output.calls:
            signal = _step_name(steps.agent, "result", call.tool_name)
            results.calls[call.tool_call_id] = await context.areceive(signal)
        options["message_history"] = result.all_messages()
        result = await agent.run(deferred_tool_results=results, **options)
    return result


@dataclass
class _AgentSteps(AbstractCapability[Any]):
    """A capability that makes each request to the model and each tool call of an agent a step of a task."""

    context: TaskContext
    agent: str
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

        stored = await self._steps.context.astep(_step_name(self._steps.agent, "model"), ask)
        [response] = ModelMessagesTypeAdapter.validate_python(stored)
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
        step = _step_name(self.steps.agent, name, ctx.tool_call_id or "")
        stored = await self.steps.context.astep(step, call)
        for error in (ModelRetry, ToolFailed, ApprovalRequired, CallDeferred):
            if error.__name__ in stored:
                more = {"kind": stored["kind"]} if stored.get("kind") else {}
                raise error(stored[error.__name__], **more)
        return _TOOL_RETURN.validate_python(stored["return"]) if "return" in stored else stored["value"]
