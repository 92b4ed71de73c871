"""docs/index.html, a page to try out the beta dial and eq. 1, with results of finished runs.

    python -m experiments.page     out/experiments/dial (dial.sh) -> docs/index.html

page.html is its template. The page reads its numbers from one JSON element and shows all text as
text, so that nothing a model says can become HTML.
"""

import json
from dataclasses import dataclass
from pathlib import Path


from data.batches import encode_example
from data.world.labelers import NOISE
from data.world.text import make_prompts
from data.world.utility import utility
from dpo import logprob_all
from experiments import plot
from tools.checkpoints import load_gpt
from tools.flags import Flags, atomic_write, read_flags

TEMPLATE = Path(__file__).with_name("page.html")


@dataclass(frozen=True)
class Config(Flags):
    folder: str = "out/experiments/dial"   # what dial.sh made
    page: str = "docs/index.html"          # what to write


def choose_answers(path, n=6):
    """-> [[prompt, answer, whether it is correct]]: what PPO says to a prompt of each of n kinds"""
    answer_of_kind = {}
    for row in plot.read_answers(path, "ppo"):
        answer_of_kind.setdefault(row["kind"], [row["prompt"], row["answer"], row["correct"]])
    return list(answer_of_kind.values())[:n]


def describe_dial(folder):
    """-> what the page shows of each beta, the smallest first; numbers are [mean, spread]"""
    dial = []
    for run, paths in plot.find_runs(folder).items():
        row = dict(beta=run.removeprefix("beta-"), answers={})
        for key in ("kl", "score", "utility", "correct"):
            row[key] = plot.average(paths, "ppo", key)
        for path in paths:
            row["answers"][path.parent.name.replace("-", " ")] = choose_answers(path)
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
    config = read_flags(__doc__, Config)
    paths = plot.all_paths(plot.find_runs(config.folder))
    data = dict(dial=describe_dial(config.folder), candidates=describe_candidates(paths[0]),
                noise=NOISE["train"], sft_utility=plot.average(paths, "sft", "utility")[0])
    text = json.dumps(data, indent=1).replace("<", "\\u003c")        # no </script> inside
    page = TEMPLATE.read_text(encoding="utf-8").replace("DATA", text)
    with atomic_write(config.page) as file:
        file.write(page)
    print(f"{config.page}: {len(page) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
