"""What a bulk enqueue keeps of its tasks: the same as a list would say, in next to no memory."""

import random
import uuid

import pytest

from taskq_core.client.stored_ids import KeptTasks
from taskq_core.wire.ids import IdBlocks
from tests.rows import rows


def test_a_block_is_drawn_again_and_its_ids_are_uuids_of_version_4() -> None:
    blocks = IdBlocks()

    ids = blocks.draw(3, 200)

    assert blocks.draw(3, 200) == ids
    assert blocks.draw(3, 7) == ids[:7]
    assert len(set(ids + blocks.draw(4, 200) + IdBlocks().draw(3, 200))) == 600
    assert {(uuid.UUID(each).version, uuid.UUID(each).variant) for each in ids} == {(4, uuid.RFC_4122)}


@rows("seed", range(20))
def test_it_says_what_a_list_would_say(seed: int) -> None:
    """Blocks that follow each other or do not, of one task or another, and tasks with ids of their own."""
    chance = random.Random(seed)
    kept, blocks = KeptTasks(), [IdBlocks(), IdBlocks()]
    numbers = [0, 0]
    ids: list[str] = []
    sources: list[str] = []
    for _ in range(chance.randrange(30)):
        size = chance.choice([1, 3, 5, 5, 5, 0])
        which = chance.randrange(2)
        if chance.random() < 0.8 and size:
            source = chance.choice(["a", "a", "a", "b"])
            kept.add_block(source, blocks[which], numbers[which], size)
            ids += blocks[which].draw(numbers[which], size)
            sources += [source] * size
            numbers[which] += chance.choice([1, 1, 1, 2])
        else:
            some = [f"own-{len(ids) + n}" for n in range(size)]
            kept.add([*"xyxyx"[:size]], some)
            ids += some
            sources += "xyxyx"[:size]

    assert list(kept) == ids
    assert len(kept) == len(ids)
    assert [kept[position] for position in range(len(ids))] == ids
    assert [kept[position] for position in range(-len(ids), 0)] == ids
    assert [kept.source(position) for position in range(len(ids))] == sources
    assert kept[2:9] == ids[2:9]
    assert kept[::-2] == ids[::-2]
    assert kept == ids
    assert kept != [*ids, "another"]
    assert kept != "text"
    with pytest.raises(IndexError):
        kept[len(ids)]


def test_blocks_that_follow_each_other_are_one_piece() -> None:
    kept, blocks = KeptTasks(), IdBlocks()
    for number in range(1000):
        kept.add_block("task", blocks, number, 200)
    kept.add_block("task", blocks, 1000, 7)

    assert (len(kept), len(kept._pieces)) == (200_007, 1)
    assert kept[200_006] == blocks.draw(1000, 7)[6]
