"""Test agents of Pydantic AI as durable tasks, with models that need no network."""

import asyncio
import json
import random
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from taskq_core import Question, Retry, SkipRetry, TaskContext, TaskHandle, TaskQ, TaskState
from taskq_core.errors import TaskFailedError
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner, until

pytest.importorskip("pydantic_ai", reason='needs Pydantic AI: pip install "pydantic-ai-slim>=2.68"')

from pydantic_ai import (
    Agent,
    AgentStreamEvent,
    CallDeferred,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelResponse,
    ModelRetry,
    PartEndEvent,
    RunContext,
    TextPart,
    ToolFailed,
    ToolReturn,
    UsageLimitExceeded,
    UsageLimits,
)
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

from taskq_pydantic_ai import run_agent

pytestmark = pytest.mark.redis

Turn = list[str] | dict[str, dict[str, Any]]
"""An answer of the model: chunks of text, or tool calls with their arguments by name."""


class Script:
    """A model with scripted answers. It answers a history of n responses with turn n, and records n in `asked`.

    The last turn waits for `hold`. If its request is cancelled meanwhile, `is_cancelled` becomes true.
    """

    def __init__(self, *turns: Turn) -> None:
        self.turns = turns
        self.asked: list[int] = []
        self.hold: asyncio.Event | None = None
        self.is_cancelled = False

    async def __call__(self, messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        turn = sum(each.kind == "response" for each in messages)
        self.asked.append(turn)
        if self.hold is not None and turn == len(self.turns) - 1:
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.is_cancelled = True
                raise
        found = self.turns[turn]
        if isinstance(found, list):
            for each in found:
                yield each
        else:
            for number, (name, args) in enumerate(found.items()):
                call = DeltaToolCall(name.partition("/")[0], json.dumps(args), tool_call_id=f"{turn}:{number}")
                yield {number: call}

    @property
    def model(self) -> FunctionModel:
        return FunctionModel(stream_function=self)


@pytest.fixture
async def app(redis_server: RedisServer) -> AsyncIterator[TaskQ]:
    app = TaskQ(redis_server.url, enqueue_timeout=30, defaults={"retention": 60, "max_retry": 0})
    yield app
    app.close()


@pytest.fixture
async def start(app: TaskQ) -> AsyncIterator[Runner]:
    runner = Runner(app)
    yield runner
    await runner.close()
    await app.aclose()


async def asked(handle: TaskHandle[Any], to: str) -> Question:
    """Return the question about a tool call with the argument `to`, once the task asks it."""
    wanted = {"agent": "agent", "tool": "send", "arguments": {"to": to}}
    await until(lambda: (question := handle.question()) is not None and question.asked == wanted)
    question = handle.question()
    assert question is not None
    return question


async def test_an_agent_continues_after_a_deploy_and_its_text_is_streamed(app: TaskQ, start: Runner) -> None:
    script = Script({"weather": {"city": "Paris"}, "weather/2": {"city": "Rome"}}, ["Take ", "an umbrella."])
    script.hold = asyncio.Event()
    agent, cities = Agent(script.model), []

    @agent.tool_plain
    async def weather(city: str) -> str:
        cities.append(city)
        return "rain"

    @app.task
    async def answer(context: TaskContext) -> list[Any]:
        result = await run_agent(context, agent, "What do I pack?")
        return [result.output, result.usage.requests]

    worker = await start(shutdown_grace=0.1)
    handle = await answer.adelay()
    await until(lambda: script.asked == [0, 1])
    worker.stop()
    await until(lambda: handle.refresh().state is TaskState.PENDING)
    script.hold.set()
    await start()

    assert await handle.aresult(timeout=30) == ["Take an umbrella.", 2]
    assert (script.asked, sorted(cities)) == ([0, 1, 1], ["Paris", "Rome"])
    assert [(item.value, item.step) async for item in handle.stream()] == [
        ("Take ", "agent model#2"),
        ("an umbrella.", "agent model#2"),
    ]


async def test_a_tool_call_waits_for_its_approval(app: TaskQ, start: Runner) -> None:
    script = Script(
        {"send": {"to": "ann"}, "send/2": {"to": "bob"}, "send/3": {"to": "eve"}, "ask_person": {}}, ["done"]
    )
    agent, sent = Agent(script.model), []

    @agent.tool_plain(requires_approval=True)
    async def send(to: str) -> str:
        sent.append(to)
        return f"sent to {to}"

    @agent.tool_plain
    def ask_person() -> str:
        raise CallDeferred

    @app.task
    async def write(context: TaskContext) -> list[Any]:
        result = await run_agent(context, agent, "Write to them")
        return [part.content for part in result.all_messages()[-2].parts]

    worker = await start()
    handle = await write.adelay()
    await until(lambda: worker.running_count == 0 and handle.refresh().state is TaskState.SCHEDULED)
    assert sent == []
    await handle.asignal("agent result ask_person", "Bob is away")
    for to, answer in (("ann", True), ("bob", False), ("eve", {"approved": False, "reason": "unknown address"})):
        question = await asked(handle, to)
        assert question.name == "agent approve send"
        await handle.aanswer(question.number, answer)

    assert set(await handle.aresult(timeout=30)) == {
        "sent to ann",
        "The tool call was denied.",
        "unknown address",
        "Bob is away",
    }
    assert (script.asked, sent) == ([0, 1], ["ann"])


async def test_cancelling_the_task_cancels_the_request_to_the_model(app: TaskQ, start: Runner) -> None:
    script = Script(["never"])
    script.hold = asyncio.Event()

    @app.task
    async def answer(context: TaskContext) -> None:
        await run_agent(context, Agent(script.model), "Hello")

    await start()
    handle = await answer.adelay()
    await until(lambda: script.asked)
    await handle.acancel()

    with pytest.raises(TaskFailedError, match="context canceled"):
        await handle.aresult(timeout=30)
    assert (script.asked, script.is_cancelled) == ([0], True)


async def test_a_usage_limit_counts_all_runs_of_the_task(app: TaskQ, start: Runner) -> None:
    script = Script({"again": {}}, {"approved": {}}, {"again": {}}, ["done"])
    agent = Agent(script.model)

    @agent.tool_plain
    def again() -> None: ...

    @agent.tool_plain(requires_approval=True)
    def approved() -> None: ...

    @app.task(max_retry=5)
    async def answer(context: TaskContext) -> None:
        try:
            await run_agent(context, agent, "Hello", usage_limits=UsageLimits(request_limit=3))
        except UsageLimitExceeded as error:
            raise SkipRetry(str(error)) from error

    await start()
    handle = await answer.adelay()
    await until(lambda: handle.question() is not None)
    await handle.aanswer(1, value=True)

    with pytest.raises(TaskFailedError, match="request_limit of 3"):
        await handle.aresult(timeout=30)
    assert script.asked == [0, 1, 2]


async def test_a_later_run_reuses_the_results_of_tools(app: TaskQ, start: Runner, clock: Clock) -> None:
    turns = {"fails": {}}, {"fails": {}}, {"fails": {}}, {"files": {}}, {"parts": {}}, ["done"]
    agent, calls, seen = Agent(Script(*turns).model), [], []

    @agent.tool_plain
    def fails() -> dict[str, int]:
        calls.append("fails")
        if len(calls) < 3:
            raise (ModelRetry("too early") if len(calls) == 1 else ToolFailed("broken"))
        return {"n": 1}

    @agent.tool_plain
    def files() -> ToolReturn[str]:
        calls.append("files")
        return ToolReturn("two files", content=["file a", "file b"], metadata={"n": 2})

    @app.task
    def size(name: str) -> int:
        return len(name)

    @agent.tool
    async def parts(ctx: RunContext[TaskContext]) -> list[int]:
        return await ctx.deps.acall(size.s("a"), size.s("bb"))

    @app.task(max_retry=1, retry_delay=1)
    async def answer(context: TaskContext) -> str:
        result = await run_agent(context, agent, "Hello", deps=context, without_step=["parts"])
        messages = ModelMessagesTypeAdapter.dump_python(result.all_messages(), mode="json", exclude={"timestamp"})
        seen.append([(part["part_kind"], part.get("content")) for each in messages for part in each["parts"]])
        if context.attempt == 1:
            raise ValueError("once")
        return result.output

    await start()
    handle = await answer.adelay()
    await until(lambda: len(seen) == 1)
    await clock.advance(5)

    assert await handle.aresult(timeout=30) == "done"
    assert calls == ["fails", "fails", "fails", "files"]
    assert seen[0] == seen[1]
    results = [content for kind, content in seen[0] if kind == "tool-return"]
    assert results == ["too early", "broken", {"n": 1}, "two files", [1, 2]]
    assert ("user-prompt", ["file a", "file b"]) in seen[0]


async def test_an_event_handler_receives_the_stored_response_in_a_later_run(
    app: TaskQ, start: Runner, clock: Clock
) -> None:
    script, seen = Script(["Hello"]), []

    async def handle_events(_: RunContext[None], events: AsyncIterable[AgentStreamEvent]) -> None:
        seen.extend([each.part.content async for each in events if isinstance(each, PartEndEvent)])

    @app.task(max_retry=1, retry_delay=1)
    async def answer(context: TaskContext) -> str:
        result = await run_agent(context, Agent(script.model), "Hello", event_stream_handler=handle_events)
        if context.attempt == 1:
            raise ValueError("once")
        return result.output

    await start()
    handle = await answer.adelay()
    await until(lambda: len(seen) == 1)
    await clock.advance(5)

    assert await handle.aresult(timeout=30) == "Hello"
    assert (seen, script.asked) == (["Hello", "Hello"], [0])


async def test_a_model_that_cannot_stream_emits_no_text(app: TaskQ, start: Runner) -> None:
    @app.task
    async def answer(context: TaskContext) -> str:
        agent = Agent(FunctionModel(lambda messages, info: ModelResponse([TextPart("whole")])), output_type=str)
        result = await run_agent(context, agent, "Hello", emit_text=False)
        return result.output

    await start()
    handle = await answer.adelay()

    assert await handle.aresult(timeout=30) == "whole"
    assert [item async for item in handle.stream()] == []


# --- several agents in one task ---------------------------------------------------------------------------------------

TASKS = 100
"""Number of tasks in each test with interruptions."""


class Interrupted:
    """Agents that look something up and say their name. Their runs are interrupted at random requests and calls."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    async def pause(self) -> None:
        """Wait a moment, or end the run of the task as a deploy does."""
        await asyncio.sleep(self.random.uniform(0, 0.003))
        if self.random.random() < 0.07:
            raise Retry(1)

    def agent(self, name: str, look: Callable[[str], Awaitable[str]] | None = None) -> Agent[Any, str]:
        async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
            await self.pause()
            turn = sum(each.kind == "response" for each in messages)
            if turn < 2:
                wanted = [f"{name} {turn}", f"{name} {turn}b"][: 1 if look is None else 2]
                return ModelResponse(
                    [ToolCallPart("look", {"for_": each}, tool_call_id=f"call {each}") for each in wanted]
                )
            return ModelResponse([TextPart(f"{name} got {messages[-1].parts[0].content}")])  # type: ignore[union-attr]

        agent: Agent[Any, str] = Agent(FunctionModel(answer), name=name, output_type=str)

        async def look_up(for_: str) -> str:
            await self.pause()
            return f"what {for_} wants"

        agent.tool_plain(name="look")(look or look_up)
        return agent


async def results_of(handles: list[TaskHandle[Any]], clock: Clock) -> list[Any]:
    """Let the time of the retries pass, and return the results."""
    for _ in range(200):
        if all(each.refresh().state is TaskState.COMPLETED for each in handles):
            break
        await clock.advance(2)
    return [await each.aresult(timeout=30) for each in handles]


def said(*names: str) -> list[str]:
    return [f"{name} got what {name} 1 wants" for name in names]


async def test_agents_at_the_same_time_get_their_own_answers(app: TaskQ, start: Runner, clock: Clock) -> None:
    @app.task(max_retry=100)
    async def ask(context: TaskContext, seed: int) -> list[str]:
        life = Interrupted(1000 * seed + context.attempt)
        names = ["ann", "bob", "eve"]
        life.random.shuffle(names)  # another order in each run
        agents = {name: life.agent(name) for name in names}
        runs = [run_agent(context, agent, "Hello", emit_text=False) for agent in agents.values()]
        found = dict(zip(agents, await asyncio.gather(*runs), strict=True))
        return [found[name].output for name in ("ann", "bob", "eve")]

    await start(concurrency=20)
    handles = [await ask.adelay(seed) for seed in range(TASKS)]
    assert await results_of(handles, clock) == [said("ann", "bob", "eve")] * TASKS


async def test_an_agent_that_asks_another_gets_its_own_answers(app: TaskQ, start: Runner, clock: Clock) -> None:
    @app.task(max_retry=100)
    async def ask(context: TaskContext, seed: int) -> list[str]:
        life = Interrupted(1000 * seed + context.attempt)
        heard: dict[str, list[str]] = {}

        async def delegate(for_: str) -> str:
            name = f"helper of {for_}"
            heard[name] = [(await run_agent(context, life.agent(name), for_, emit_text=False)).output]
            return f"what {for_} wants"

        result = await run_agent(context, life.agent("boss", delegate), "Hello", without_step=["look"], emit_text=False)
        assert all(said(name) == text for name, text in heard.items())
        return [result.output, *sorted(heard)]

    await start(concurrency=20)
    handles = [await ask.adelay(seed) for seed in range(TASKS)]
    helpers = [f"helper of boss {each}" for each in ("0", "0b", "1", "1b")]
    assert await results_of(handles, clock) == [[*said("boss"), *helpers]] * TASKS


async def test_an_agent_that_a_deploy_puts_in_front_gets_its_own_answers(
    app: TaskQ, start: Runner, clock: Clock
) -> None:
    @app.task(max_retry=100)
    async def ask(context: TaskContext, seed: int) -> list[str]:
        life = Interrupted(1000 * seed + context.attempt)
        names = ["first"] if context.attempt == 1 else ["before", "first", "first"]
        found = [(await run_agent(context, life.agent(name), "Hello", emit_text=False)).output for name in names]
        if context.attempt == 1:
            raise Retry(1)
        return found

    await start(concurrency=20)
    handles = [await ask.adelay(seed) for seed in range(TASKS)]
    assert await results_of(handles, clock) == [said("before", "first", "first")] * TASKS


async def test_two_runs_of_one_name_at_the_same_time_are_refused(app: TaskQ, start: Runner) -> None:
    @app.task
    async def ask(context: TaskContext, names: list[str | None]) -> list[str]:
        script = Script(["Hello"])
        runs = [run_agent(context, Agent(script.model), "Hi", name=name) for name in names]
        return [each.output for each in await asyncio.gather(*runs)]

    await start()
    with pytest.raises(
        TaskFailedError, match=r"agent 'agent' runs in this task already.*run_agent\(\.\.\., name=\.\.\.\)"
    ):
        await (await ask.adelay([None, None])).aresult(timeout=30)
    assert await (await ask.adelay(["a", "b" * 200])).aresult(timeout=30) == ["Hello", "Hello"]


async def test_a_task_from_before_the_names_had_agents_continues(app: TaskQ, start: Runner) -> None:
    script = Script({"send": {"to": "ann"}}, ["done"])
    agent, code = Agent(script.model), ["old"]

    @agent.tool_plain(requires_approval=True)
    async def send(to: str) -> str:
        return f"sent to {to}"

    @app.task
    async def write(context: TaskContext) -> str:
        if code == ["old"]:
            response = ModelResponse([ToolCallPart("send", {"to": "ann"}, tool_call_id="0:0")])
            await context.astep("model", lambda: ModelMessagesTypeAdapter.dump_python([response], mode="json"))
            await context.areceive("approve send", bool | str)
        return (await run_agent(context, agent, "Write to them")).output

    await start()
    handle = await write.adelay()
    await until(lambda: handle.refresh().state is TaskState.SCHEDULED)
    code[:] = ["new"]
    await handle.asignal("approve send", True)

    assert await handle.aresult(timeout=30) == "done"
    assert script.asked == [1], "the stored response is used"
