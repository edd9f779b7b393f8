"""Rows of figures as text."""

from typing import Any


class Table:
    """Prints one row at a time, so that a long run shows what it has found.

    columns: a column's title, and how its values are formatted.
    """

    def __init__(self, title: str, **columns: str) -> None:
        self.rows: list[dict[str, Any]] = []
        self._columns = columns
        print(title)
        print("".join(f"{name.replace('_', ' '):>{self._width(name)}}" for name in columns))

    def add(self, **values: Any) -> None:
        """Values without a column are kept for the JSON file alone."""
        self.rows.append(values)
        cells = [
            format(values[name], form) if values.get(name) is not None else "-"
            for name, form in self._columns.items()
        ]
        print(
            "".join(
                f"{cell:>{self._width(name)}}"
                for name, cell in zip(self._columns, cells, strict=True)
            ),
            flush=True,
        )

    def _width(self, name: str) -> int:
        return max(len(name), 14 if self._columns[name] == "s" else 9) + 2
