"""How rows of an answer are laid out: a table where the terminal is wide enough for one, else a block for each row.

Names, ids and figures are never broken, so that they can be read and copied; sentences are, between words.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

GAP = 2  # characters between columns
NONE = "-"  # in a cell
LEAST_PROSE = 24  # characters that a column of sentences needs to be read


def shown(text: str) -> str:
    """Without what a terminal would obey: names and reasons come from others."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


class Rows:
    """Named columns and their rows. prose: the columns that may be broken between words; the last one always may."""

    def __init__(self, *columns: str, prose: Collection[str] = ()) -> None:
        self._columns = columns
        self._prose = {index for index, column in enumerate(columns) if column in prose} | {len(columns) - 1}
        self._rows: list[tuple[str, ...]] = []

    def add(self, *cells: object) -> None:
        """One more row, with as many cells as there are columns."""
        self._rows.append(tuple(shown(str(cell)) for cell in cells))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """As wide as it may be (rich's protocol)."""
        if self._width() <= options.max_width:
            yield self._table()
        else:
            yield from self._blocks()

    def _width(self) -> int:
        """Characters that the table needs at least."""
        return sum(self._column_width(index) for index in range(len(self._columns))) + GAP * (len(self._columns) - 1)

    def _column_width(self, index: int) -> int:
        header = self._columns[index]
        longest = max((cell_len(row[index]) for row in self._rows), default=0)
        if index not in self._prose:
            return max(cell_len(header), longest)
        in_header = max((cell_len(word) for word in header.split()), default=0)
        return max(in_header, min(longest, LEAST_PROSE))

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for index, column in enumerate(self._columns):
            if index in self._prose:
                table.add_column(column, overflow="fold", min_width=self._column_width(index))
            else:
                table.add_column(column, no_wrap=True)
        for row in self._rows:
            table.add_row(*map(escape, row))
        return table

    def _blocks(self) -> Iterator[RenderableType]:
        """Each row as lines of a column's name and its cell; what there is none of is left out."""
        for number, row in enumerate(self._rows):
            block = Table.grid(padding=(0, GAP, 0, 0))
            block.add_column(no_wrap=True, style="bold")
            block.add_column(overflow="fold")
            for column, cell in zip(self._columns, row, strict=True):
                if cell not in ("", NONE):
                    block.add_row(escape(column), escape(cell))
            if number:
                yield Text("")
            yield block
