"""Workflows: tasks that run one after the other, side by side, or after any number of others.

`canvas` puts them together, `named` those of steps by name, `graph` checks them whole, `sending` writes them down,
`client` enqueues them and asks how they stand. That a step starts when its predecessors have ended is the work of the
script that settles them (`_flow` in `broker/lua`).
"""

from taskq_core.handles.workflow import WorkflowHandle
from taskq_core.handles.workflow_records import StepInfo, StepState, WorkflowGraph, WorkflowInfo, WorkflowState
from taskq_core.tasks.canvas import Canvas, Chain, Group, PartialCanvas, Single, chain, chord, group, step
from taskq_core.tasks.named import After, Workflow, after
from taskq_core.tasks.step_options import OnFailure, StepFailure

__all__ = [
    "After",
    "Canvas",
    "Chain",
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
