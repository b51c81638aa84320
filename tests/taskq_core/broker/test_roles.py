"""Test that each role has exactly the commands that its requests and scripts use."""

import re
from collections.abc import Iterable
from importlib import import_module
from importlib.resources import files
from importlib.resources.abc import Traversable
from inspect import getsource, isfunction

from taskq_core.broker.roles import EVERY_QUEUE, RedisVersion, Role, rules
from taskq_core.broker.scripts import all_scripts, load

ANY = {"ACL", "ASKING", "CLIENT", "CLUSTER", "CONFIG", "INFO", "PING", "SCRIPT", "WAIT"}
"""Commands without a key, which connections and some tools send."""
ENQUEUES = ("enqueue", "locate", "read_task", "read_stream", "identify", "revoke", "signal", "read_steps")
WORKFLOWS = ("create_workflow", "add_members", "close_groups", "read_workflow", "cancel_workflow", "revoke_steps")
PRODUCER_SCRIPTS = (*ENQUEUES, *WORKFLOWS)
"""Scripts of clients that enqueue tasks and workflows, wait for their results and cancel them."""

CORE = files("taskq_core")
OPERATOR_MODULES = [
    *(
        file
        for room in ("inspector", "repair", "views")
        for file in (CORE / room).iterdir()
        if file.name.endswith(".py")
    ),
    *(CORE / name for name in ("handles/changing.py", "handles/copying.py", "handles/workflow_plans.py")),
]
"""Modules of tools that read data and act on tasks."""

READING = ("count_", "estimate_", "list_", "read_", "scan_")
"""First parts of the names of scripts that read data."""

FUNCTION = re.compile(r"^( *)(?:local )?function ([\w.]+)\([^\n]*\n(.*?)^\1end$", re.MULTILINE | re.DOTALL)


def rules_of(role: str, *queues: str, redis: RedisVersion = RedisVersion.V7_2) -> list[str]:
    """Return the ACL rules of a role with all its optional rights."""
    with_lists = role in (Role.PRODUCER, Role.SCHEDULER)
    return rules(Role(role), queues or [EVERY_QUEUE], prefix="asynq", redis=redis, with_lists=with_lists)


def commands(role: str) -> set[str]:
    """Return the commands on keys and channels that a role may send, in capitals and without subcommands."""
    found = [rule for rule in rules_of(role, redis=RedisVersion.V6_2) if rule.startswith("+")]
    return {rule[1:].partition("|")[0].upper() for rule in found} - ANY


def in_scripts(names: Iterable[str]) -> set[str]:
    """Return the commands that these scripts call."""
    texts = [reachable_code(load(name).text) for name in names]
    return {command for text in texts for command in re.findall(r"(?:\bp?call|own|check)\(\s*'([A-Z]+)'", text)}


def used_by(modules: list[Traversable]) -> tuple[set[str], set[str]]:
    """Return the scripts and the plain commands of the operations that these modules use."""
    rooms = {path.name.removesuffix(".py") for path in (CORE / "broker/operations").iterdir()}
    called = {f"{room.removesuffix('s')}_ops": room for room in rooms} | {room: room for room in rooms}
    found = []
    for module in modules:
        text = module.read_text(encoding="utf-8")
        names = {(called[room], name) for room, name in re.findall(rf"\b({'|'.join(called)})\.(\w+)", text)}
        for room, imported in re.findall(r"from taskq_core\.broker\.operations\.(\w+) import (\([^)]*\)|[^\n]*)", text):
            names |= {(room, name) for name in re.findall(r"\w+", imported)}
        for room, name in names:
            each = getattr(import_module(f"taskq_core.broker.operations.{room}"), name, None)
            found += [each] if isfunction(each) else []
    source = "\n".join(getsource(each) for each in found)
    scripts = set(re.findall(r'script\(\s*"(\w+)"', source))
    return scripts, set(re.findall(r"[(\[]\"([A-Z]{3,})\"", source)) | {"EVAL", "EVALSHA"}


def reachable_code(text: str) -> str:
    """Return the reachable code of a script: its top-level lines and all functions that they call, also indirectly."""
    functions: dict[str, list[str]] = {}

    def without_functions(text: str) -> str:
        def store(match: re.Match[str]) -> str:
            functions.setdefault(match[2].rpartition(".")[2], []).append(without_functions(match[3]))
            return ""

        return FUNCTION.sub(store, text)

    found = [without_functions(re.sub(r"--.*", "", text))]
    for part in found:  # the loop appends to it
        for name in set(re.findall(r"\w+", part)) & functions.keys():
            found += functions.pop(name)
    return "\n".join(found)


class TestRoles:
    def test_a_worker_may_send_exactly_the_commands_that_taskq_uses(self) -> None:
        scripts = in_scripts(script.name for script in all_scripts() if script.name != "try_commands")
        sent: set[str] = set()
        for file in (files("taskq_core.broker") / "operations").iterdir():
            if file.name.endswith(".py"):
                sent |= set(re.findall(r"[(\[]\"([A-Z]{3,})\"", file.read_text()))

        needed = (scripts | sent | {"EVALSHA", "SUBSCRIBE"}) - ANY
        allowed = commands("worker")
        assert sorted(needed - allowed) == []
        assert sorted(allowed - needed) == []

    def test_a_producer_needs_fewer_commands_than_a_worker(self) -> None:
        sent = {"EVALSHA", "EVAL", "SADD", "PUBLISH", "SUBSCRIBE"}

        needed = in_scripts(PRODUCER_SCRIPTS) | sent
        allowed = commands("producer")
        assert sorted(needed - allowed) == []
        assert sorted(allowed - needed) == []
        assert allowed < commands("worker")

    def test_an_operator_needs_fewer_commands_than_a_worker(self) -> None:
        scripts, sent = used_by(OPERATOR_MODULES)

        # an operator may do all that a producer may, and only producers read streams
        needed = (in_scripts({*scripts, "read_stream"}) | sent | {"SUBSCRIBE"}) - ANY
        allowed = commands("operator")
        assert sorted(needed - allowed) == []
        assert sorted(allowed - needed) == []
        assert allowed < commands("worker")
        assert commands("producer") <= allowed

    def test_a_viewer_may_send_all_commands_of_scripts_that_read(self) -> None:
        """tests/topologies/test_roles.py records what the tools of a viewer send, and also finds unneeded commands."""
        scripts, _ = used_by(OPERATOR_MODULES)
        reading = {name for name in (*scripts, "read_stream") if name.startswith(READING)}

        needed = in_scripts(reading) - ANY - {"HSET"}  # `read_task` works without it; see also `generation_of`
        assert sorted(needed - commands("viewer")) == []
        assert commands("viewer") < commands("operator")

    def test_a_scheduler_needs_fewer_commands_than_a_worker(self) -> None:
        scripts, sent = used_by([file for file in (CORE / "scheduler").iterdir() if file.name.endswith(".py")])

        needed = (in_scripts(scripts) | sent) - ANY
        allowed = commands("scheduler")
        assert sorted(needed - allowed) == []
        assert sorted(allowed - needed) == []
        assert allowed < commands("worker")

    def test_an_exporter_needs_fewer_commands_than_a_viewer(self) -> None:
        needed = in_scripts(["count_tasks", "estimate_memory", "list_alive"])
        needed |= {"EVAL", "EVALSHA", "HGETALL", "MGET", "SMEMBERS"}
        needed |= {"LRANGE"}  # a script chooses this command at run time

        allowed = commands("exporter")
        assert sorted(needed - allowed) == []
        assert sorted(allowed - needed) == []
        assert allowed < commands("viewer")

    def test_a_worker_checks_all_commands_of_scripts_at_its_start(self) -> None:
        used = in_scripts(script.name for script in all_scripts() if script.name != "try_commands")

        probes = load("try_commands").text.partition("probes = {")[2].partition("}")[0]
        probed = set(re.findall(r"'([A-Z]+)[ ']", probes))
        assert sorted(used - probed) == [], "try_commands.lua does not check these commands"
        assert sorted(probed - used) == ["GETEX"], (
            "try_commands.lua tries others in vain"
        )  # a leadership keeps its lead by it
