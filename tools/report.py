"""What eval.py found, shown: tables, five prompts answered by every model, a page for a browser.

    python -m tools.report                            out/results.json, answers.jsonl and metrics/
                                                      again, -> out/report.html
    python -m tools.report --against out-1            the page says what differs from another run
    python -m tools.report --seeds out,out-1,out-2    tables over several runs, in Markdown
"""

import statistics
from collections import Counter
from dataclasses import dataclass

from tools.flags import check, read_flags, run
from tools.page import write_report
from tools.results import (COLUMNS, NAMES, kinds_of, read_answers, read_results, split_readings,
                           tell, value_of)


@dataclass(frozen=True)
class Config:
    out: str = "out"               # folder in which eval.py has run
    against: str = ""              # another such folder: what differs from it
    seeds: str = ""                # or several, "out,out-1": mean and spread over them


# --- tables ---------------------------------------------------------------------------------------


def mean_and_half(results, name, *which):
    """0.71 +- 0.04, the half of its 95 % interval"""
    centre = value_of(results, name, *which)
    half = value_of(results["intervals"], name, *which)
    return "-" if centre is None else f"{centre:.2f}" + (f" +- {half:.2f}" if half else "")


def print_rows(title, rows, names, results):
    """rows: {label: the key, or the key and the kind}"""
    print("\n" + title.ljust(24) + "".join(name.rjust(15) for name in names))
    for label, which in rows.items():
        cells = [mean_and_half(results, name, *which) for name in names]
        if set(cells) != {"-"}:
            print(label.ljust(24) + "".join(cell.rjust(15) for cell in cells))


def print_table(results):
    """A column per model, means with half of their 95 % intervals; then the reward model."""
    names = [name for name in NAMES if name in results]
    print_rows("", {label: (key,) for key, label in COLUMNS.items()}, names, results)
    kinds = {kind: ("right_by_kind", kind) for kind in kinds_of(results)}
    if kinds:
        print_rows("right at 0.7", kinds, names, results)
    reads, rest = split_readings(results["rm"])
    print("\n" + "\n".join(f"held-out pairs, {key}: {tell(key, value)}"
                           for key, value in rest.items()))
    if reads:
        print("\nthe reward model puts the careful answer above")
    for label, value in reads.items():
        print(f"  {label.ljust(36)}{value:.1%}")


def print_frequent(answers):
    """What each tuned model says most often, to how many prompts, and how often that is right."""
    for name in ("sft", "ppo", "ppo_ptx", "dpo"):
        given = [row for row in answers if row["model"] == name and "right" in row]
        if given:
            answer, n = Counter(row["answer"] for row in given).most_common(1)[0]
            right = sum(row["right"] for row in given if row["answer"] == answer)
            print(f"  {name:14} {' / '.join(answer.splitlines())}  "
                  f"(at {n} of {len(given)} prompts, right at {right})")


def print_samples(answers, n=5):
    """The first prompt of each of n kinds, or the first n of one's own, answered by every model."""
    first = {}
    for row in answers:
        first.setdefault(row.get("kind", row["prompt"]), row["prompt"])
    for prompt in list(first.values())[:n]:
        print(f"\n{prompt}")
        for row in (row for row in answers if row["prompt"] == prompt):
            answer = " / ".join(row["answer"].splitlines())
            print(f"  {row['model']:14} {answer}{'' if row['ended'] else ' ...'}")
    if any("right" in row for row in answers):
        print("\nthe most frequent answer of each")
        print_frequent(answers)


def spread(values):
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def extremes(values):
    return f"{min(values):.2f} to {max(values):.2f}"


def common(dictionaries):
    """The keys that all have, in the order of the first."""
    return [key for key in dictionaries[0] if all(key in other for other in dictionaries)]


def print_markdown(title, rows, names, runs, cell):
    """A table whose cells speak of all runs; rows as in print_rows."""
    print(f"| {title} | {' | '.join(NAMES[name] for name in names)} |")
    print("|" + "---|" * (len(names) + 1))
    for label, which in rows.items():
        values = [[value_of(run, name, *which) for run in runs] for name in names]
        cells = ["" if None in found else cell(found) for found in values]
        if any(cells):
            print(f"| {label} | {' | '.join(cells)} |")
    print()


def print_seeds(folders):
    """Tables in Markdown: mean and standard deviation over finished runs, then lowest and highest.
    """
    runs = [read_results(folder) for folder in folders]
    names = [name for name in NAMES if name in common(runs)]
    measures = {label: (key,) for key, label in COLUMNS.items()}
    kinds = {kind: ("right_by_kind", kind) for kind in kinds_of(runs[0])}
    for cell in (spread, extremes):
        print_markdown(f"{len(runs)} seeds", measures, names, runs, cell)
        if kinds:
            print_markdown("right at 0.7", kinds, names, runs, cell)
    for key in common([run["rm"] for run in runs]):
        values = [run["rm"][key] for run in runs]
        if not isinstance(values[0], dict):
            mean, deviation, lowest = (tell(key, value) for value in (
                statistics.mean(values), statistics.stdev(values), min(values)))
            print(f"reward model, {key}: {mean} ± {deviation}, lowest {lowest}")
    print("seconds:", {stage: round(statistics.mean(run["seconds"][stage] for run in runs))
                       for stage in common([run["seconds"] for run in runs])})


# --- main -----------------------------------------------------------------------------------------


def show(out, against=""):
    results, answers = read_results(out), read_answers(out)
    print_table(results)
    print_samples(answers)
    print(f"\n{write_report(out, against)}: every prompt and every model's answer, for a browser")


def main():
    config = read_flags(__doc__, Config)
    folders = [folder.strip() for folder in config.seeds.split(",") if folder.strip()]
    check(len(folders) != 1, f"--seeds {config.seeds}: two folders or more, out,out-1")
    if folders:
        print_seeds(folders)
    else:
        show(config.out, config.against)


if __name__ == "__main__":
    run(main)
