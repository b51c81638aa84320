"""How columns are fitted to the width of a terminal."""

from taskq_core.cli.table import Column, fitted

NAME = Column(title="Name", least=6)
SIZE = Column(title="Size", right=True)
NOTE = Column(title="Note", least=5, drop=1)
TEXT = Column(title="Text", least=5, drop=2, width=1)
COLUMNS = (NAME, SIZE, NOTE, TEXT)


def test_columns_are_as_wide_as_their_content_if_there_is_room() -> None:
    assert fitted(COLUMNS, (10, 5, 8, 12), 100) == {0: 10, 1: 5, 2: 8, 3: 69}


def test_the_widest_columns_shrink_first_and_numbers_never_shrink() -> None:
    assert fitted(COLUMNS, (10, 5, 8, 30), 40) == {0: 10, 1: 5, 2: 8, 3: 9}


def test_the_least_important_columns_are_omitted_if_there_is_no_room() -> None:
    assert fitted(COLUMNS, (10, 5, 8, 30), 25) == {0: 7, 1: 5, 2: 7}
    assert fitted(COLUMNS, (10, 5, 8, 30), 15) == {0: 6, 1: 5}


def test_required_columns_stay_even_if_they_do_not_fit() -> None:
    assert fitted(COLUMNS, (10, 5, 8, 30), 4) == {0: 6, 1: 5}


def test_a_command_omits_no_column_and_truncates_no_id() -> None:
    columns = (Column(title="Id", whole=True, least=6), *COLUMNS[1:])

    assert fitted(columns, (20, 5, 8, 30), 25, is_live=False) == {0: 20, 1: 5, 2: 8, 3: 10}
