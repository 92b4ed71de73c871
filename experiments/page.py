"""docs/index.html: temperature, the beta dial and eq. 1 to try out, with results of finished runs.

    python -m experiments.page out docs/index.html      after train_all.sh and experiments/dial.sh

page.html is its template. It shows all text as text, so that no answer can become HTML.
"""

import json
import sys
from pathlib import Path

from data.batches import encode_example
from data.world.labelers import NOISE
from data.world.text import make_prompts
from data.world.utility import utility
from dpo import logprob_all
from experiments import tables
from tools.checkpoints import load_gpt
from tools.flags import atomic_write

TEMPLATE = Path(__file__).with_name("page.html")


def describe_dial(folder):
    """-> what the page shows of each beta, the largest first, as the KL grows; numbers are [mean,
    spread]. An answer is [prompt, answer, whether it is correct]."""
    dial = []
    for run, paths in tables.find_runs(folder).items():
        row = dict(beta=run.removeprefix("beta-"), answers={})
        for key in ("kl", "score", "utility", "correct"):
            row[key] = tables.average(paths, "ppo", key)
        for path in paths:
            answer_of_kind = {}
            for answer in tables.read_answers(path, "ppo"):
                answer_of_kind[answer["kind"]] = [answer["prompt"], answer["answer"],
                                                  answer["correct"]]
            row["answers"][path.parent.name.replace("-", " ")] = list(answer_of_kind.values())[:6]
        dial.append(row)
    return sorted(dial, key=lambda row: -float(row["beta"]))


def describe_temperatures(out):
    """-> a row per temperature and model: fraction of correct answers, true utility, and answers to
    the first prompts of five kinds"""
    results, rows, prompt_of_kind = tables.read_results(out), [], {}
    for answer in tables.read_answers(out, "sft"):
        if len(prompt_of_kind) < 5:
            prompt_of_kind.setdefault(answer["kind"], answer["prompt"])
    for temperature, suffix in (("1", ""), ("0.7", "_07"), ("0", "_greedy")):
        for model in ("sft", "ppo", "dpo"):
            answers = []
            for answer in tables.read_answers(out, model):
                if answer["prompt"] in prompt_of_kind.values():
                    shown = answer if temperature == "1" else answer["cooler"][temperature]
                    answers.append([answer["prompt"], shown["answer"], shown["correct"]])
            rows.append(dict(temperature=temperature, model=tables.NAMES[model], answers=answers,
                             correct=results[model][f"correct{suffix}"],
                             utility=results[model][f"utility{suffix}"]))
    return rows


def describe_candidates(path):
    """Four answers to one prompt, their true utility, and their log-probabilities under the SFT
    model, normalised over the four."""
    for prompt in make_prompts(500, "eval"):
        if prompt.kind == "open qa" and not prompt.unknown and prompt.wrong != prompt.terse:
            break
    texts = [prompt.careful, prompt.terse, f"What a good question. {prompt.careful}", prompt.wrong]
    sft, tokenizer = load_gpt(path / "sft.pt")
    examples = [encode_example(tokenizer, prompt.text, text) for text in texts]
    log_ref = logprob_all(sft, examples, "cpu").log_softmax(dim=0)
    return dict(prompt=prompt.text, texts=texts, log_ref=log_ref.tolist(),
                utilities=[utility(prompt, text) for text in texts])


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    out, page = Path(sys.argv[1]), sys.argv[2]
    dial = out / "experiments" / "dial"
    paths = tables.all_paths(tables.find_runs(dial))
    data = dict(dial=describe_dial(dial), candidates=describe_candidates(out), noise=NOISE["train"],
                temperatures=describe_temperatures(out),
                sft_utility=tables.average(paths, "sft", "utility")[0])
    text = json.dumps(data, indent=1).replace("<", "\\u003c")        # no </script> inside
    with atomic_write(page) as file:
        file.write(TEMPLATE.read_text(encoding="utf-8").replace("DATA", text))
    print(f"wrote {page}")


if __name__ == "__main__":
    main()
