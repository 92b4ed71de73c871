"""Constitutional AI: an assistant becomes harmless by rules in words (arXiv 2212.08073). No person
labels harm.

1 assistant    A helpful-only assistant, which insults, agrees and invents if it is asked to: SFT on
               answers that helpful-only labelers prefer.
2 revise       It answers red-team prompts. A judge criticises each answer by a random rule and
               revises it, round after round (section 3.1).
3 SL-CAI       SFT on the revisions of all rounds and on helpful answers.
4 collect      Answers of SL-CAI for RL-CAI, which is later/feedback.py --constitution and then
               ppo.py (section 4).

    python -m later.constitution   out/sft.pt, out/judge.pt -> out/helpful.pt, out/sl_cai.pt,
                                   out/revisions.jsonl, and for RL-CAI out/comparisons.jsonl,
                                   out/red_team.jsonl, out/prompts.jsonl

later/demos/constitution.sh runs the whole method. Rules, prompts and labelers are in
later/principles.py; later/harm.py measures the result.
"""

import json
import random
from dataclasses import dataclass

from torch import nn

from compare import collect
from data.batches import batch_by_length, collate, drop_long, encode_example, encode_prompt
from data.comparisons import write_comparison
from data.files import read_prompts
from data.world.labelers import make_labelers
from data.world.text import demonstrate
from generate import respond
from later.harm import is_harmless
from later.principles import (CONSTITUTION, HELPFUL, ask_critique, ask_revision, make_helpful_only,
                              make_red_team)
from pretrain import lm_loss
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import TrainingFlags, atomic_write, read_flags
from tools.optimizers import cosine, make_adam, scale_lr
from tools.training import Run


@dataclass(frozen=True)
class Config(TrainingFlags):
    init_from: str = "sft"         # checkpoint in --out that becomes the assistant
    prompts: int = 4000            # ordinary prompts; paper 135,296
    red_team: int = 1000           # prompts that ask for a fault; paper 182,831
    rounds: int = 4                # of critique and revision; paper 4
    own_answers: bool = False      # a control: imitate the assistant's own answers, not revisions
    temperature: float = 0.7       # of answers, critiques and revisions; paper 1
    comparisons: int = 1000        # prompts of both kinds whose answers are ranked for RL-CAI
    k: int = 4                     # answers per prompt in these
    max_new_tokens: int = 48       # longest answer
    batch: int = 32                # sequences per step
    lr: float = 1e-3               # peak learning rate (Adam)


def fine_tune(config, model, tokenizer, name, pairs, device):
    """One epoch of sft.py on [(prompt text, answer)] -> out/<name>.pt"""
    examples = [encode_example(tokenizer, prompt, answer) for prompt, answer in pairs]
    examples = drop_long(examples, model.config.block_size, "examples")
    batches = batch_by_length([len(x) + len(y) for x, y in examples], config.batch)
    n_steps = len(batches)

    model.train()
    adam = make_adam(model.parameters(), config.lr)
    run = Run(config, name, n_steps, model=model, adam=adam)
    for step in range(run.first_step, n_steps):
        tokens, mask = collate([examples[i] for i in batches[step]], device)
        loss = lm_loss(model(tokens), tokens, mask)
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scale_lr(adam, cosine(step / n_steps))
        adam.step()
        adam.zero_grad()
        run.log(step, loss=loss, grad_norm=grad_norm)
        if step % 100 == 99:
            run.save(step)
    run.finish(model.eval(), tokenizer)


def read_ordinary(n, split, seed):
    """Prompts that do not ask for a fault."""
    return [prompt for prompt in read_prompts(n, split, seed) if not prompt.pleasing]


def write_lines(path, records):
    with atomic_write(path) as file:
        for record in records:
            file.write(json.dumps(record) + "\n")


# --- 1 assistant ----------------------------------------------------------------------------------


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


# --- 2 revise -------------------------------------------------------------------------------------


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
    """Rounds of critique and revision, which start from the assistant's answers. -> a record per
    prompt and round; round 0 is the assistant's answer"""
    # differs from the paper: the judge criticises and revises, not the assistant, since a model of
    # this size follows only instructions of a kind that it was trained on
    rng = random.Random(f"revise {config.seed}")
    records = []
    answers = write(config, assistant, tokenizer, [prompt.text for prompt in prompts])
    rules, critiques = [HELPFUL] * len(prompts), [""] * len(prompts)
    for n in range(config.rounds + 1):
        if n > 0:
            rules = [rng.choice(CONSTITUTION) for _ in prompts]
            pages = [ask_critique(rule, prompt.text, answer)
                     for rule, prompt, answer in zip(rules, prompts, answers)]
            critiques = write(config, judge, tokenizer, pages)
            pages = [ask_revision(page, critique) for page, critique in zip(pages, critiques)]
            answers = write(config, judge, tokenizer, pages)
        for prompt, rule, critique, answer in zip(prompts, rules, critiques, answers):
            records.append(dict(round=n, prompt=prompt.text, rule=rule.text,
                                critique=critique, answer=answer,
                                harmless=is_harmless(prompt, answer)))
        harmless = sum(record["harmless"] for record in records[-len(prompts):])
        print(f"round {n}: {harmless / len(prompts):.0%} of the answers are harmless")
    return records


# --- 4 collect ------------------------------------------------------------------------------------


def collect_comparisons(config, model, tokenizer, name, make_split_prompts, labelers):
    """-> out/<name>.jsonl; returns its training prompts"""
    train = make_split_prompts(config.comparisons, "train", config.seed)
    valid = make_split_prompts(config.comparisons // 10, "valid", config.seed)
    with atomic_write(f"{config.out}/{name}.jsonl") as file:
        for prompts, split in ((train, "train"), (valid, "valid")):
            for record in collect(config, model, tokenizer, prompts, labelers, split):
                write_comparison(file, record)
    return train


def main():
    config = read_flags(__doc__, Config)
    device = setup(config)
    judge, _ = load_gpt(f"{config.out}/judge.pt", device)
    model, tokenizer = load_gpt(f"{config.out}/{config.init_from}.pt", device)
    fine_tune(config, model, tokenizer, "helpful", helpful_demonstrations(config), device)

    red_team = make_red_team(config.red_team, "train", config.seed)
    revisions = revise(config, model, judge, tokenizer, red_team)
    write_lines(f"{config.out}/revisions.jsonl", revisions)

    ordinary = [prompt.text for prompt in read_ordinary(config.prompts, "train", config.seed)]
    pairs = list(zip(ordinary, write(config, model, tokenizer, ordinary)))
    for record in revisions:
        if (record["round"] == 0) == config.own_answers:
            pairs.append((record["prompt"], record["answer"]))
    pairs = [(prompt, answer) for prompt, answer in pairs if answer]
    # differs from the paper: continues from the assistant, not from the pretrained model
    fine_tune(config, model, tokenizer, "sl_cai", pairs, device)

    # helpful-only labelers rank answers to ordinary prompts. The recipe's labelers rank the others,
    # for comparison: later/feedback.py has the judge label these
    prompts = collect_comparisons(config, model, tokenizer, "comparisons", read_ordinary,
                                  make_helpful_only())
    prompts += collect_comparisons(config, model, tokenizer, "red_team", make_red_team,
                                   make_labelers("train"))
    write_lines(f"{config.out}/prompts.jsonl", [dict(prompt=p.text) for p in prompts])


if __name__ == "__main__":
    main()
