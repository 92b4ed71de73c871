"""Measures finished checkpoints on the tasks of grpo.py and reasoning.py. Training sees none of it.

    python -m later.measure --models sft,strict,loose           -> out/verifiable.json
        prompts with one correct answer, and all others (_other), at temperature 1
    python -m later.measure --task sums --models chains,final   -> out/reasoning.json
        held-out sums of four to six numbers, of seven and of eight
"""

import json
from dataclasses import dataclass

import torch

from data.batches import all_windows, encode_prompt, pack
from data.files import read_heldout_documents
from data.world.utility import measure_utility
from generate import respond
from later.chains import make_sums, measure_chains, read_number, vote
from later.verifiers import loose, make_checkable, strict
from later.watch import log_ratio_all
from pretrain import measure_loss
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import Flags, atomic_write, check, read_flags


@dataclass(frozen=True)
class Config(Flags):
    task: str = "verifiable"       # verifiable or sums
    models: str = "sft"            # checkpoints in --out, separated by commas
    n: int = 250                   # held-out prompts of each kind
    k: int = 8                     # answers per sum for majority vote and pass@k
    max_new_tokens: int = 72       # longest answer


def sample_and_compare(config, model, ref, tokenizer, prompts):
    """-> responses (ids) at temperature 1, and dict(kl, length)"""
    torch.manual_seed(config.seed)                     # the same random numbers for every model
    responses = respond(model, tokenizer, [p.text for p in prompts], config.max_new_tokens)
    examples = []
    for prompt, response in zip(prompts, responses):
        examples.append((encode_prompt(tokenizer, prompt.text), response))
    log_ratio = log_ratio_all(model, ref, examples, model.lm_head.weight.device)
    length = sum(len(response) for response in responses) / len(responses)
    # y ~ model, so kl is KL(model || ref)
    return responses, dict(kl=log_ratio.mean().item(), length=length)


def measure_verifiable(config, model, ref, tokenizer):
    """-> utility, correct, the verdicts of both verifiers, kl, length, and the loss on documents"""
    figures = {}
    for suffix, checkable in (("", True), ("_other", False)):
        prompts = make_checkable(config.n, "eval", config.seed, checkable)
        responses, row = sample_and_compare(config, model, ref, tokenizer, prompts)
        row |= measure_utility(prompts, responses, tokenizer)
        for verify in (loose, strict):
            passed = 0
            for prompt, ids in zip(prompts, responses):
                passed += verify(prompt, tokenizer.decode(ids), ids[-1] == tokenizer.eos)
            row[verify.__name__] = passed / len(prompts)
        for name, value in row.items():
            figures[name + suffix] = value
    text = pack(tokenizer, read_heldout_documents(0)).to(model.lm_head.weight.device)
    tokens, mask = all_windows(text, model.config.block_size)
    return figures | dict(lm_loss=measure_loss(model, tokens, mask).item())


def measure_votes(sums, answers):
    """answers: k texts per sum. -> fractions of sums whose most frequent final number is correct
    (majority), and of those with a correct one among k (pass_at_k)"""
    majority = passed = 0
    for problem, texts in zip(sums, answers):
        numbers = [read_number(text) for text in texts]
        correct = str(sum(problem.numbers))
        majority += numbers[vote(numbers)] == correct
        passed += correct in numbers
    return dict(majority=majority / len(sums), pass_at_k=passed / len(sums))


def measure_sums(config, model, ref, tokenizer):
    """-> {numbers per sum: {name: value}}"""
    figures = {}
    for label, sizes in (("4-6", (4, 5, 6)), ("7", (7,)), ("8", (8,))):
        sums = make_sums(config.n, "eval", config.seed, sizes)
        responses, row = sample_and_compare(config, model, ref, tokenizer, sums)
        row |= measure_chains(sums, responses, tokenizer)
        texts = [problem.text for problem in sums]
        greedy = respond(model, tokenizer, texts, config.max_new_tokens, temperature=0)
        row["correct_greedy"] = measure_chains(sums, greedy, tokenizer)["correct"]
        answers = [[] for _ in sums]
        for _ in range(config.k):
            for i, ids in enumerate(respond(model, tokenizer, texts, config.max_new_tokens)):
                answers[i].append(tokenizer.decode(ids))
        figures[label] = row | measure_votes(sums, answers)
    return figures


def main():
    config = read_flags(__doc__, Config)
    check(config.task in ("verifiable", "sums"), "--task must be verifiable or sums")
    device = setup(config)
    start, measure, path = "sft", measure_verifiable, f"{config.out}/verifiable.json"
    if config.task == "sums":
        start, measure, path = "chains", measure_sums, f"{config.out}/reasoning.json"
    ref, tokenizer = load_gpt(f"{config.out}/{start}.pt", device)
    figures = {}
    for name in config.models.split(","):
        model, _ = load_gpt(f"{config.out}/{name}.pt", device)
        figures[name] = measure(config, model, ref, tokenizer)
        shown = figures[name].get("4-6", figures[name])
        print(f"{name}:", ", ".join(f"{key} {value:.2f}" for key, value in shown.items()))
    with atomic_write(path) as file:
        file.write(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
