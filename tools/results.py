"""What a finished run has left, read and checked: logs, answers, results."""

import json
import math
from pathlib import Path

from tools.flags import check, fail

NAMES = {"base": "base", "base_few_shot": "base, few-shot page", "sft": "SFT", "ppo": "PPO",
         "ppo_ptx": "PPO-ptx", "dpo": "DPO"}                              # columns of the tables
COLUMNS = {"right": "right, temperature 1", "right_07": "right, temperature 0.7",
           "gold": "true utility", "win_gold": "wins, true utility",
           "win_labelers": "wins, labelers", "undeserved": "undeserved",
           "score": "score", "kl": "KL to SFT", "length": "tokens", "truthful": "truthful",
           "invented": "invents", "agrees_with_false": "agrees with false",
           "denies_true": "denies true", "rude": "rude",
           "withheld": "withholds", "lists_prompts": "lists prompts",
           "lm_loss": "pretraining loss", "few_shot": "few-shot exact"}   # their rows
READINGS = {"reads_wrong": "its wrong variant",
          "reads_same_kind": "one to another prompt of its kind",
          "reads_other": "one to a prompt of another kind",
          "reads_frequent": "the policy's most frequent answer", "reads_terse": "the terse one"}


def read_lines(path):
    """The JSON lines of a file, [] if there is no such file. A stopped run's last line may be cut.
    """
    try:
        written = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as e:
        fail(f"{path} is damaged ({e}); delete it, or make it again")
    *whole, last = written.split("\n")               # a whole line ends, so the last one is ""
    lines = []
    for i, line in enumerate([*whole, last] if last else whole, 1):
        try:
            lines.append(json.loads(line))
            assert type(lines[-1]) is dict
        except (ValueError, RecursionError, AssertionError) as e:
            if i > len(whole) and line.startswith("{") and isinstance(e, ValueError):
                return lines
            fail(f"{path}:{i} is damaged; delete the file, or make it again")
    return lines


def read_log(path):
    """A stage's metrics: {"step": 0, ...}, {"step": 1, ...}, ..., the closing line has step -1."""
    lines = read_lines(path)
    for i, line in enumerate(lines, 1):
        check(type(line.get("step")) is int and all(map(is_number, line.values())),
              f"{path}:{i} is no line of a log (a \"step\" and other numbers); "
              "delete the file, or make it again")
    return lines


def read_closing(out):
    """-> {stage: the closing line of its metrics}, without stages that were stopped"""
    logs = {path.stem: read_log(path) for path in (Path(out) / "metrics").glob("*.jsonl")}
    return {stage: lines[-1] for stage, lines in logs.items() if lines and lines[-1]["step"] == -1}


def read_answers(out):
    """answers.jsonl: {"model", "prompt", "answer", "ended"}, and "kind", "gold", "right" where the
    truth is known."""
    path, lines = Path(out) / "answers.jsonl", read_lines(Path(out) / "answers.jsonl")
    given = dict(model=str, prompt=str, answer=str, ended=bool)
    known = dict(kind=str, right=bool)
    for i, line in enumerate(lines, 1):
        wrong = [key for key, kind in (given | known).items()
                 if type(line.get(key)) is not kind and (key in given or key in line)]
        check(not wrong, f"{path}:{i}: \"{' and '.join(wrong)}\" is not what eval.py writes; "
                         f"python eval.py --out {out} makes it again")
    return lines


def read_results(out):
    """results.json: a dictionary per model, "rm", "seconds", "intervals"."""
    try:
        results = json.loads((Path(out) / "results.json").read_text(encoding="utf-8"))
        assert type(results) is dict and {"rm", "seconds", "intervals"} <= set(results), (
            "keys are missing")
        for key in [*NAMES, "rm", "seconds"]:
            check_numbers(results.get(key, {}), key)
        assert type(results["intervals"]) is dict, "intervals"
        for key in NAMES:
            check_numbers(results["intervals"].get(key, {}), f"intervals of {key}", least=0)
        return results
    except (OSError, ValueError, RecursionError, AssertionError) as e:
        fail(f"{out}/results.json: {e}; python eval.py --out {out} makes it")


def check_numbers(found, name, least=-math.inf):
    """{key: number}, but a key that tells kinds of prompts apart holds {kind: number}."""
    assert type(found) is dict, f"{name} is no object"
    for key, value in found.items():
        kinds = key.endswith("_by_kind")
        assert not kinds or type(value) is dict, f"{key!r} of {name} is no object"
        values = value.values() if kinds else [value]
        assert all(is_number(x) and x >= least for x in values), f"{key!r} of {name} is no number"


def is_number(value):
    """No bool, no NaN, nothing that can not be drawn; float32 goes to 3e38."""
    return (type(value) is int and abs(value) < 2 ** 53
            or type(value) is float and abs(value) < 1e39)


def value_of(results, name, key, kind=None):
    """What results.json says of a model, or of its answers to one kind of prompt; None if nothing
    was counted."""
    found = results.get(name, {}).get(key)
    return found if kind is None or found is None else found.get(kind)


def kinds_of(results):
    return next((list(row["right_by_kind"]) for name, row in results.items()
                 if name in NAMES and "right_by_kind" in row), [])


def split_readings(rm):
    """What results.json says of the reward model, without its tables by kind. -> the readings
    {whom it puts below: share}, the rest {key: value}"""
    flat = {key: value for key, value in rm.items() if not isinstance(value, dict)}
    return ({READINGS.get(key, key): v for key, v in flat.items() if key.startswith("reads_")},
            {key: v for key, v in flat.items() if not key.startswith("reads_")})


def tell(key, value):
    """What results.json says of the reward model: shares, and one slope."""
    return f"{value:.2f}" if key == "length_slope" else f"{value:.1%}"
