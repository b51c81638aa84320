"""How columns are fitted to the width of a terminal."""

from taskq_core.cli.table import Column, fitted

NAME = Column(title="Name", least=6)
SIZE = Column(title="Size", right=True)
NOTE = Column(title="Note", least=5, drop=1)
TEXT = Column(title="Text", least=5, drop=2, width=1)
COLUMNS = (NAME, SIZE, NOTE, TEXT)


def test_columns_are_as_wide_as_what_they_show_where_there_is_room() -> None:
    assert fitted(COLUMNS, (10, 5, 8, 12), 100) == {0: 10, 1: 5, 2: 8, 3: 69}


def test_the_widest_give_way_first_and_numbers_never() -> None:
    assert fitted(COLUMNS, (10, 5, 8, 30), 40) == {0: 10, 1: 5, 2: 8, 3: 9}


def test_what_matters_least_is_left_out_where_there_is_no_room() -> None:
    assert fitted(COLUMNS, (10, 5, 8, 30), 25) == {0: 7, 1: 5, 2: 7}
    assert fitted(COLUMNS, (10, 5, 8, 30), 15) == {0: 6, 1: 5}


def test_what_must_be_seen_stays_even_where_it_does_not_fit() -> None:
    assert fitted(COLUMNS, (10, 5, 8, 30), 4) == {0: 6, 1: 5}


def test_a_command_drops_no_column_and_cuts_no_id() -> None:
    columns = (Column(title="Id", whole=True, least=6), *COLUMNS[1:])

    assert fitted(columns, (20, 5, 8, 30), 25, is_live=False) == {0: 20, 1: 5, 2: 8, 3: 10}
