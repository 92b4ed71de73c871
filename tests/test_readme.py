"""The README's reading order points at the lines that it names, and its list of differences holds
each that the code confesses."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"\| (?:`(\w+\.py)`)? ?\| `([^`]+)`.*?\| (\d+) \|")
# words of a comment `# differs from the paper` and words of the README's item
DIFFERENCES = {("model.py", "start as waves"): "start as sinusoids",
               ("plumbing.py", "Adam for all"): "the paper: Adam for all",
               ("reward.py", "head stands beside the unembedding"): "beside the unembedding",
               ("reward.py", "K answers is a labeler's"): "is a labeler's demonstration",
               ("ppo.py", "answers of like length"): "answers of like length",
               ("dpo.py", "prompts weigh alike"): "prompts weigh alike",
               ("dpo.py", "falls linearly to 0"): "learning rate falls to 0"}


def test_the_reading_order_names_the_lines():
    file, seen = None, 0
    for row in (ROOT / "README.md").read_text().splitlines():
        if match := ROW.match(row):
            file = match[1] or file
            line = (ROOT / file).read_text().splitlines()[int(match[3]) - 1]
            assert match[2] in line, f"{file}:{match[3]} is {line!r}, not {match[2]}"
            seen += 1
    assert seen >= 12


def test_every_difference_that_the_code_confesses_stands_in_the_readme():
    section = (ROOT / "README.md").read_text().partition("## Where we differ from the paper")[2]
    section = " ".join(section.partition("\n## ")[0].split())
    confessed = [(path.name, line) for path in [*ROOT.glob("*.py"), *ROOT.glob("data/*.py")]
                 for line in path.read_text().splitlines() if "# differs from the paper" in line]
    assert len(confessed) == len(DIFFERENCES)
    for (name, words), item in DIFFERENCES.items():
        assert sum(name == n and words in line for n, line in confessed) == 1, (name, words)
        assert item in section, f"{name}: the README does not say: {item}"
