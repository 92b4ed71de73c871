"""Measures policies on held-out prompts. Training sees none of these figures.

    python -m later.measure --models sft,ppo      --task is one of
        policy        true utility, correct answers, both also greedily, KL to the reference, tokens
        verifiable    the same on prompts with one correct answer, and on all others (_other); on a
                      third of the former, whether any of k answers is correct (pass_at_k)
        sums          worked sums of four to six numbers, and of seven and eight; --reference chains
        harmless      is it harmless, helpful, evasive?

Figures go to out/measured.json. All but _greedy are at temperature 1; KL is in nats per answer.
"""

import json
from dataclasses import dataclass

import torch

from data.batches import all_windows, encode_prompt, pack
from data.files import read_heldout_documents, read_prompts
from data.world.utility import breakdown, is_correct, measure_utility
from dpo import logprob_all
from generate import respond
from later.chains import make_sums, measure_chains, read_number, vote
from later.principles import is_evasive, is_harmless, make_innocent, make_red_team
from later.verifiers import loose, make_checkable, strict
from pretrain import measure_loss
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import Flags, atomic_write, check, read_flags


@dataclass(frozen=True)
class Config(Flags):
    models: str = "sft"            # checkpoints in --out, separated by commas
    task: str = "policy"           # policy, verifiable, sums or harmless
    reference: str = "sft"         # checkpoint in --out to which the KL is measured
    n: int = 300                   # prompts of each kind
    k: int = 8                     # answers per prompt for majority vote and pass@k
    max_new_tokens: int = 48       # longest answer


def log_ratio_all(policy, ref, examples, device):
    """log policy/ref of any number of responses.  [(prompt ids, response ids)] -> (N,)"""
    return logprob_all(policy, examples, device) - logprob_all(ref, examples, device)


def answer(config, policy, ref, tokenizer, prompts):
    """With random numbers of its own. -> a response (token ids) to each prompt, dict(kl, length)"""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        responses = respond(policy, tokenizer, [p.text for p in prompts], config.max_new_tokens)
    examples = []
    for prompt, response in zip(prompts, responses):
        examples.append((encode_prompt(tokenizer, prompt.text), response))
    log_ratio = log_ratio_all(policy, ref, examples, policy.lm_head.weight.device)
    length = sum(len(response) for response in responses) / len(responses)
    # y ~ policy, so kl is KL(policy || ref)
    return responses, dict(kl=log_ratio.mean().item(), length=length)


def measure_policy(config, policy, ref, tokenizer, prompts):
    """-> dict(utility, correct, both also with _greedy, kl, length), empty without prompts"""
    if not prompts:
        return {}
    responses, figures = answer(config, policy, ref, tokenizer, prompts)
    figures |= measure_utility(prompts, responses, tokenizer)
    greedy = respond(policy, tokenizer, [p.text for p in prompts], config.max_new_tokens, 0)
    for name, value in measure_utility(prompts, greedy, tokenizer).items():
        figures[f"{name}_greedy"] = value
    return figures


def decode_answers(prompts, responses, tokenizer):
    """-> [(prompt, answer, ended)], the arguments of functions that judge an answer"""
    answers = []
    for prompt, ids in zip(prompts, responses):
        answers.append((prompt, tokenizer.decode(ids), ids[-1] == tokenizer.eos))
    return answers


def measure_heldout_prompts(config, policy, ref, tokenizer):
    prompts = read_prompts(config.n, "valid", config.seed)
    return measure_policy(config, policy, ref, tokenizer, prompts)


def measure_verifiable(config, policy, ref, tokenizer):
    """Also the verdicts of both verifiers, and the loss on held-out documents."""
    figures = {}
    for suffix, one_answer in (("", True), ("_other", False)):
        prompts = make_checkable(config.n, "eval", config.seed, one_answer)
        row = measure_policy(config, policy, ref, tokenizer, prompts)
        responses, _ = answer(config, policy, ref, tokenizer, prompts)
        for verifier in (loose, strict):
            passed = [verifier(*x) for x in decode_answers(prompts, responses, tokenizer)]
            row[verifier.__name__] = sum(passed) / len(passed)
        if one_answer:
            row["pass_at_k"] = pass_at_k(config, policy, tokenizer, prompts[:max(1, config.n // 3)])
        for name, value in row.items():
            figures[name + suffix] = value
    text = pack(tokenizer, read_heldout_documents(0)).to(policy.lm_head.weight.device)
    tokens, mask = all_windows(text, policy.config.block_size)
    return figures | dict(lm_loss=measure_loss(policy, tokens, mask).item())


def pass_at_k(config, policy, tokenizer, prompts):
    """-> share of the prompts with a correct answer among k"""
    passed = 0
    repeated = [prompt for prompt in prompts for _ in range(config.k)]
    responses = respond(policy, tokenizer, [p.text for p in repeated], config.max_new_tokens)
    correct = [is_correct(*x) for x in decode_answers(repeated, responses, tokenizer)]
    for start in range(0, len(repeated), config.k):
        passed += any(correct[start:start + config.k])
    return passed / len(prompts)


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


def measure_sums(config, policy, ref, tokenizer):
    sums = make_sums(config.n, "eval", config.seed)
    responses, figures = answer(config, policy, ref, tokenizer, sums)
    figures |= measure_chains(sums, responses, tokenizer)
    texts = [problem.text for problem in sums]
    greedy = respond(policy, tokenizer, texts, config.max_new_tokens, temperature=0)
    figures["correct_greedy"] = measure_chains(sums, greedy, tokenizer)["correct"]
    answers = [[] for _ in sums]
    for _ in range(config.k):
        for i, ids in enumerate(respond(policy, tokenizer, texts, config.max_new_tokens)):
            answers[i].append(tokenizer.decode(ids))
    figures |= measure_votes(sums, answers)
    for size in (7, 8):
        longer = make_sums(config.n, "eval", config.seed, (size,))
        responses, _ = answer(config, policy, ref, tokenizer, longer)
        figures[f"correct_{size}"] = measure_chains(longer, responses, tokenizer)["correct"]
    return figures


def measure_harm(config, policy, ref, tokenizer):
    """harmless     fraction of answers to red-team prompts without any of the three faults
    task         how much of the task its answers to ordinary prompts do, from 0 to 1
    evasive      fraction of answers to innocent prompts that refuse, claim ignorance or contradict
    """
    red_team = make_red_team(config.n, "eval", config.seed)
    ordinary = [p for p in read_prompts(config.n, "eval", config.seed) if not p.pleasing]
    innocent = make_innocent(config.n, "eval", config.seed)
    responses, figures = answer(config, policy, ref, tokenizer, red_team + ordinary)
    answers = decode_answers(red_team + ordinary, responses, tokenizer)
    to_red_team, to_ordinary = answers[:config.n], answers[config.n:]
    responses, _ = answer(config, policy, ref, tokenizer, innocent)
    evasive = [is_evasive(tokenizer.decode(ids)) for ids in responses]
    return figures | dict(
        harmless=sum(is_harmless(*x) for x in to_red_team) / len(to_red_team),
        correct_red=sum(is_correct(*x) for x in to_red_team) / len(to_red_team),
        task=sum(breakdown(*x)["task"] / 3 for x in to_ordinary) / len(to_ordinary),
        evasive=sum(evasive) / len(evasive))


TASKS = dict(policy=measure_heldout_prompts, verifiable=measure_verifiable, sums=measure_sums,
             harmless=measure_harm)


def main():
    config = read_flags(__doc__, Config)
    check(config.task in TASKS, f"--task {config.task}: must be one of {', '.join(TASKS)}")
    device = setup(config)
    ref, tokenizer = load_gpt(f"{config.out}/{config.reference}.pt", device)
    figures = {}
    for name in config.models.split(","):
        policy, _ = load_gpt(f"{config.out}/{name}.pt", device, (ref, tokenizer))
        figures[name] = TASKS[config.task](config, policy, ref, tokenizer)
        print(f"{name}:", ", ".join(f"{key} {value:.2f}" for key, value in figures[name].items()))
    with atomic_write(f"{config.out}/measured.json") as file:
        file.write(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
