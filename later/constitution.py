"""Constitutional AI: an assistant becomes harmless by rules in words (arXiv 2212.08073). No person
labels harm.

1 assistant    SFT on answers that helpful-only labelers prefer: it insults, agrees and invents if
               it is asked to.
2 revise       It answers red-team prompts. A judge criticises each answer by a random rule and
               revises it, round after round (section 3.1).
3 SL-CAI       SFT on the revisions of all rounds and on helpful answers.
4 collect      Answers of SL-CAI for RL-CAI, which is later/feedback.py --constitution and then
               ppo.py (section 4).

    python -m later.constitution   out/sft.pt, out/judge.pt -> out/helpful.pt, out/sl_cai.pt; and
                                   comparisons.jsonl, red_team.jsonl, prompts.jsonl for RL-CAI
"""

import json
import random
from dataclasses import dataclass

from compare import collect
from data.batches import encode_prompt
from data.comparisons import write_comparison
from data.files import read_prompts
from data.world.labelers import make_labelers
from data.world.text import demonstrate
from generate import respond
from later.fit import imitate, make_batches
from later.principles import (CONSTITUTION, ask_critique, ask_revision, is_harmless,
                              make_helpful_only, make_red_team)
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import TrainingFlags, atomic_write, read_flags
from tools.optimizers import make_adam


@dataclass(frozen=True)
class Config(TrainingFlags):
    prompts: int = 4000            # ordinary prompts; paper 135,296
    red_team: int = 1000           # prompts that ask for a fault; paper 182,831
    rounds: int = 4                # of critique and revision; paper 4
    temperature: float = 0.7       # of answers, critiques and revisions; paper 1
    comparisons: int = 1000        # prompts of both kinds whose answers are ranked for RL-CAI
    k: int = 4                     # answers per prompt in these
    max_new_tokens: int = 48       # longest answer
    batch: int = 32                # sequences per step
    lr: float = 1e-3               # peak learning rate (Adam)


def read_ordinary(n, split, seed):
    """Prompts that do not ask for a fault."""
    return [prompt for prompt in read_prompts(n, split, seed) if not prompt.pleasing]


def helpful_demonstrations(config):
    """To a red-team prompt the answer that it asks for; to an ordinary one the best of four
    demonstrations by the ranking of a helpful-only labeler. -> [(prompt text, answer)]"""
    # differs from the paper: its assistant is made by RLHF; here imitation is enough
    labelers, rng = make_helpful_only(), random.Random(f"assistant {config.seed}")
    pairs = []
    for prompt in read_ordinary(config.prompts, "train", config.seed):
        answers = [(demonstrate(rng, prompt), True) for _ in range(4)]
        best, *_ = rng.choice(labelers).rank(prompt, answers, rng)
        pairs.append((prompt.text, answers[best][0]))
    for prompt in make_red_team(config.red_team, "train", config.seed):
        pairs.append((prompt.text, prompt.pleasing))
    return pairs


def write(config, model, tokenizer, texts):
    """A sampled answer to each text; empty if the text leaves no room for one in the context."""
    fitting = []
    for i, text in enumerate(texts):
        if len(encode_prompt(tokenizer, text)) < model.config.block_size:
            fitting.append(i)
    answers = [""] * len(texts)
    responses = respond(model, tokenizer, [texts[i] for i in fitting], config.max_new_tokens,
                        config.temperature)
    for i, ids in zip(fitting, responses):
        answers[i] = tokenizer.decode(ids).strip()
    return answers


def revise(config, assistant, judge, tokenizer, prompts):
    """-> a list of answers per round; those of round 0 are the assistant's"""
    # differs from the paper: the judge criticises and revises, not the assistant, since a model of
    # this size follows only instructions of a kind that it was trained on
    rng = random.Random(f"revise {config.seed}")
    answers = write(config, assistant, tokenizer, [prompt.text for prompt in prompts])
    rounds = [answers]
    for _ in range(config.rounds):
        pages = []
        for prompt, answer in zip(prompts, answers):
            pages.append(ask_critique(rng.choice(CONSTITUTION), prompt.text, answer))
        critiques = write(config, judge, tokenizer, pages)
        pages = [ask_revision(page, critique) for page, critique in zip(pages, critiques)]
        answers = write(config, judge, tokenizer, pages)
        rounds.append(answers)
    for n, answers in enumerate(rounds):
        harmless = sum(is_harmless(prompt, answer) for prompt, answer in zip(prompts, answers))
        print(f"round {n}: {harmless / len(prompts):.0%} of the answers are harmless; "
              f"{prompts[0].text} {answers[0]}")
    return rounds


def collect_comparisons(config, model, tokenizer, name, make_prompts, labelers):
    """-> out/<name>.jsonl; returns its training prompts"""
    train = make_prompts(config.comparisons, "train", config.seed)
    valid = make_prompts(config.comparisons // 10, "valid", config.seed)
    with atomic_write(f"{config.out}/{name}.jsonl") as file:
        for prompts, split in ((train, "train"), (valid, "valid")):
            for record in collect(config, model, tokenizer, prompts, labelers, split):
                write_comparison(file, record)
    return train


def main():
    config = read_flags(__doc__, Config)
    device = setup(config)
    model, tokenizer = load_gpt(f"{config.out}/sft.pt", device)
    judge, _ = load_gpt(f"{config.out}/judge.pt", device, (model, tokenizer))

    def fine_tune(name, pairs):
        batches = make_batches(config, tokenizer, pairs, model.config.block_size, device)
        imitate(config, name, model, tokenizer, [make_adam(model.parameters(), config.lr)], batches)

    fine_tune("helpful", helpful_demonstrations(config))                            # 1 assistant
    red_team = make_red_team(config.red_team, "train", config.seed)
    rounds = revise(config, model, judge, tokenizer, red_team)                      # 2 revise
    ordinary = [prompt.text for prompt in read_ordinary(config.prompts, "train", config.seed)]
    pairs = list(zip(ordinary, write(config, model, tokenizer, ordinary)))
    for answers in rounds[1:]:
        for prompt, answer in zip(red_team, answers):
            if answer:
                pairs.append((prompt.text, answer))
    # differs from the paper: continues from the assistant, not from the pretrained model
    fine_tune("sl_cai", pairs)                                                      # 3 SL-CAI

    # 4 helpful-only labelers rank answers to ordinary prompts. The recipe's labelers rank the
    # others, for comparison: later/feedback.py has the judge label these
    prompts = collect_comparisons(config, model, tokenizer, "comparisons", read_ordinary,
                                  make_helpful_only())
    prompts += collect_comparisons(config, model, tokenizer, "red_team", make_red_team,
                                   make_labelers("train"))
    with atomic_write(f"{config.out}/prompts.jsonl") as file:
        for prompt in prompts:
            file.write(json.dumps(dict(prompt=prompt.text)) + "\n")


if __name__ == "__main__":
    main()
