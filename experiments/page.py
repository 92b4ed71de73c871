"""docs/index.html, a page to try out the beta dial and eq. 1, with results of finished runs.

    python -m experiments.page out/experiments/dial docs/index.html      after dial.sh

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
    """-> what the page shows of each beta, the smallest first; numbers are [mean, spread]. An
    answer is [prompt, answer, whether it is correct]."""
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
    return sorted(dial, key=lambda row: float(row["beta"]))


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
    folder, page = sys.argv[1:]
    paths = tables.all_paths(tables.find_runs(folder))
    data = dict(dial=describe_dial(folder), candidates=describe_candidates(paths[0]),
                noise=NOISE["train"], sft_utility=tables.average(paths, "sft", "utility")[0])
    text = json.dumps(data, indent=1).replace("<", "\\u003c")        # no </script> inside
    with atomic_write(page) as file:
        file.write(TEMPLATE.read_text(encoding="utf-8").replace("DATA", text))
    print(f"wrote {page}")


if __name__ == "__main__":
    main()
