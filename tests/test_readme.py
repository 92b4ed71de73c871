"""The README's reading order points at the lines that it names."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"\| (?:`(\w+\.py)`)? ?\| `([^`]+)`.*?\| (\d+) \|")


def test_the_reading_order_names_the_lines():
    file, seen = None, 0
    for row in (ROOT / "README.md").read_text().splitlines():
        if match := ROW.match(row):
            file = match[1] or file
            line = (ROOT / file).read_text().splitlines()[int(match[3]) - 1]
            assert match[2] in line, f"{file}:{match[3]} is {line!r}, not {match[2]}"
            seen += 1
    assert seen >= 12
