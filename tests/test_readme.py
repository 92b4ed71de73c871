"""The README's reading order points at the lines that it names, and its list of differences is the
one that the code confesses."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"\| (?:`(\w+\.py)`)? ?\| `([^`]+)`.*?\| (\d+) \|")
MARK = "# differs from the paper: "


def confessions():
    """What stands behind the mark, with the comment lines that follow it. -> "`file`: words" """
    for path in sorted([*ROOT.glob("*.py"), *ROOT.glob("data/**/*.py"), *ROOT.glob("tools/*.py")]):
        lines = path.read_text().splitlines()
        for i, line in enumerate(lines):
            if MARK not in line:
                continue
            words = line.partition(MARK)[2]
            for more in lines[i + 1:] if line.strip().startswith("#") else []:
                if not more.strip().startswith("# ") or MARK in more:
                    break
                words += " " + more.strip()[2:]
            yield f"`{path.relative_to(ROOT)}`: {words}"


def test_the_reading_order_names_the_lines():
    file, seen = None, 0
    for row in (ROOT / "README.md").read_text().splitlines():
        if match := ROW.match(row):
            file = match[1] or file
            line = (ROOT / file).read_text().splitlines()[int(match[3]) - 1]
            assert re.search(re.escape(match[2]) + r"(?!\w)", line), (
                f"{file}:{match[3]} is {line!r}, not {match[2]}")
            seen += 1
    assert seen >= 12


def test_the_readmes_list_of_differences_is_what_the_code_confesses():
    section = (ROOT / "README.md").read_text().partition("## Where we differ from the paper")[2]
    items = [" ".join(item.split()) for item in section.partition("\n## ")[0].split("\n- ")[1:]]
    assert sorted(items) == sorted(confessions())


def test_every_script_is_named_in_the_reading_order_and_every_file_named_there_exists():
    text = (ROOT / "README.md").read_text()
    order = text.partition("## Reading order")[2].partition("\n## ")[0]
    for path in ROOT.glob("*.py"):
        assert f"`{path.name}`" in order, path.name
    for link in re.findall(r"\]\(([\w/.]+\.(?:md|png|svg))\)", text):
        assert (ROOT / link).is_file(), link
