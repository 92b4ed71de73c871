"""README points at the right lines; docs/paper.md lists the differences that the code names."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MARK = re.compile(r"# differs from (?:the )?(paper|DPO paper|GPT-2): (.*)")


def reading_order():
    """The rows, as lists of cells, of the table | file | look at | line | paper |."""
    rows, in_table = [], False
    for line in README.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "file":
            in_table = True
        elif not line.startswith("|"):
            in_table = False
        elif in_table and not set(line) <= set("|-: "):
            rows.append(cells)
    return rows


def test_the_reading_order_names_the_lines():
    """A cell `look at` has a name in backquotes; an empty cell `file` means that of the row before.
    """
    rows, path = reading_order(), None
    assert len(rows) >= 12
    for cells in rows:
        file_name, look_at, line_number = cells[:3]
        if file_name:
            path = ROOT / re.search(r"`([\w/.]+)`", file_name)[1]
        name = re.search(r"`([^`]+)`", look_at)[1]
        line = path.read_text().splitlines()[int(line_number) - 1]
        assert re.search(re.escape(name) + r"(?!\w)", line), (
            f"{path.name}:{line_number} is {line!r}, not {name}")


def differences_in_the_code():
    """What follows the mark, with the comment lines that continue it.
    -> ["`file`: text"], or ["`file`, GPT-2: text"] if it is not InstructGPT"""
    differences = []
    for path in sorted([*ROOT.glob("*.py"), *ROOT.glob("data/**/*.py"), *ROOT.glob("tools/*.py")]):
        lines = path.read_text().splitlines()
        for i, line in enumerate(lines):
            mark = MARK.search(line)
            if not mark:
                continue
            source, text = mark.groups()
            if line.strip().startswith("#"):
                for next_line in lines[i + 1:]:
                    if not next_line.strip().startswith("# ") or MARK.search(next_line):
                        break
                    text += " " + next_line.strip()[2:]
            label = "" if source == "paper" else f", {source}"
            differences.append(f"`{path.relative_to(ROOT)}`{label}: {text}")
    return differences


def test_the_list_of_differences_is_that_of_the_code():
    section = (ROOT / "docs/paper.md").read_text().split("\n## Where the code differs")[1]
    items = [" ".join(item.split()) for item in section.split("\n- ")[1:]]
    assert sorted(items) == sorted(differences_in_the_code())


def test_every_script_is_in_the_reading_order_and_every_link_exists():
    files = " ".join(cells[0] for cells in reading_order())
    for path in ROOT.glob("*.py"):
        assert f"`{path.name}`" in files, path.name
    for link in re.findall(r"\]\(([\w/.]+\.\w+)\)", README):
        assert (ROOT / link).is_file(), link


def test_the_oldest_python_is_the_same_everywhere():
    places = ["README.md", "course/instructor.md", "tools/setup.sh"]
    versions = {re.search(r"Python (3\.\d+) or newer", (ROOT / place).read_text())[1]
                for place in places}
    assert versions == {"3.10"}
    assert "sys.version_info < (3, 10)" in (ROOT / "tools/setup.sh").read_text()


def test_every_printed_installation_is_in_a_virtual_environment():
    """Debian and Ubuntu refuse to install packages for the system's Python."""
    for path in [*ROOT.glob("*.md"), *ROOT.glob("*/*.md")]:
        text = path.read_text()
        for match in re.finditer(r"^(?:sudo )?(?:python3? -m )?pip3? install", text, re.M):
            block = text[text.rindex("```", 0, match.start()):match.start()]
            assert re.search(r"source \S*venv/bin/activate", block), f"{path}: {match[0]}"


def test_every_file_and_function_of_the_paper_table_exists():
    rows = [line for line in (ROOT / "docs/paper.md").read_text().splitlines()
            if line.startswith("| ")][1:]
    assert 40 <= len(rows) <= 60
    for row in rows:
        code = row.split("|")[3].strip()
        if code:
            path, *name = re.findall(r"`([^`]+)`", code)
            text = (ROOT / path).read_text()
            if name:
                pattern = rf"^(?:(?:def|class) {name[0]}\b|{name[0]} = )"
                assert re.search(pattern, text, re.M), row
