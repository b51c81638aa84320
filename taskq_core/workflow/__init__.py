"""Workflows: tasks that run one after the other, at the same time, or after any number of other tasks.

`tasks.canvas` and `tasks.named` build workflows. `graph` turns them into named steps and checks them, `sending` encodes
them, `aio` and `sync` enqueue them, and `handles.workflow_plans` reads them. The script that settles a step starts the
next steps (`_flow` in `broker/lua`), and `dispatch` moves steps and outcomes between queues.
"""

from taskq_core.handles.workflow import WorkflowHandle
from taskq_core.handles.workflow_records import StepInfo, StepState, WorkflowGraph, WorkflowInfo, WorkflowState
from taskq_core.tasks.canvas import Canvas, Chain, Chord, Group, PartialCanvas, Single, chain, chord, group, step
from taskq_core.tasks.named import Workflow, after
from taskq_core.tasks.step_options import After, OnFailure, StepFailure

__all__ = [
    "After",
    "Canvas",
    "Chain",
    "Chord",
    "Group",
    "OnFailure",
    "PartialCanvas",
    "Single",
    "StepFailure",
    "StepInfo",
    "StepState",
    "Workflow",
    "WorkflowGraph",
    "WorkflowHandle",
    "WorkflowInfo",
    "WorkflowState",
    "after",
    "chain",
    "chord",
    "group",
    "step",
]
