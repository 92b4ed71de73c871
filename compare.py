"""Step 2a: collect comparisons. A labeler ranks K responses to a prompt (InstructGPT, arXiv
2203.02155, sections 3.4 and 3.5).

1 sample       The SFT model answers each prompt K - 1 times; a demonstration is added.
2 rank         A labeler ranks the K answers. Labelers are simulated (data/world/labelers.py).

    python compare.py        out/sft.pt, prompts -> out/comparisons.jsonl
    python compare.py --me   you rank up to 20 pairs yourself -> out/labels.jsonl

reward.py and dpo.py train on out/comparisons.jsonl, or on --comparisons out/labels.jsonl.
"""

import json
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path

from data.batches import drop_long_prompts, encode_response
from data.comparisons import rank_agreement, write_comparison
from data.files import is_small_world, read_prompts
from data.world.labelers import Biases, make_labelers
from data.world.person import Person
from data.world.text import demonstrate
from data.world.utility import utility
from generate import respond
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import Flags, atomic_write, check, read_flags


@dataclass(frozen=True)
class Config(Flags):
    init_from: str = "sft"         # checkpoint in --out that is sampled from
    prompts: int | str = 4000      # prompts to train on; with --me also a file; paper 33,207
    heldout_prompts: int = 300     # prompts to measure accuracy on
    k: int = 0                     # answers per prompt, 0: 4 to 9, before equal ones are removed
    max_new_tokens: int = 48       # longest response
    me: bool = False               # rank 20 pairs at the keyboard
    length_bias: float = 0.15      # labelers add this times log(1 + words) to the true utility
    sycophancy_bias: float = 0.3   # what they add if an answer affirms a false premise
    confidence_bias: float = 0.0   # what they add if an answer invents a fact
    doubt_bias: float = 0.0        # what they add for "I do not know"


def sample_answers(config, model, tokenizer, prompts, rng, split):
    """A demonstration and sampled answers for each prompt, without repetitions. There are no
    demonstrations for prompts of a file. -> lists of responses (token ids)"""
    n_demonstrations = 1 if is_small_world(config.prompts) else 0
    texts, n_samples = [], []
    for prompt in prompts:
        n_samples.append((config.k or rng.randint(4, 9)) - n_demonstrations)
        texts += [prompt.text] * n_samples[-1]
    samples = iter(respond(model, tokenizer, texts, config.max_new_tokens,
                           title=f"compare, {split}"))
    answers = []
    for prompt, n in zip(prompts, n_samples):
        responses = []
        if n_demonstrations:
            # differs from the paper: one of the K answers is a labeler's demonstration
            responses.append(encode_response(tokenizer, demonstrate(rng, prompt)))
        for _ in range(n):
            response = next(samples)
            if response not in responses:                    # equal answers would be ties
                responses.append(response)
        answers.append(responses)
    return answers


def collect(config, model, tokenizer, prompts, labelers, split):
    """Yields records of comparisons.jsonl (format: data/comparisons.py)."""
    rng = random.Random(f"collect {split} {config.seed}")
    # 1 sample
    answers_to_prompts = sample_answers(config, model, tokenizer, prompts, rng, split)
    # 2 rank
    for prompt, responses in zip(prompts, answers_to_prompts):
        if len(responses) == 1:
            continue                                         # nothing to compare
        answers = []
        for response in responses:
            answers.append((tokenizer.decode(response), response[-1] == tokenizer.eos))
        labeler = rng.choice(labelers)
        record = dict(prompt=prompt.text, responses=[text for text, _ in answers], ids=responses,
                      ranking=labeler.rank(prompt, answers, rng), labeler=labeler.name,
                      split=split)
        if split == "valid":
            others = [other for other in labelers if other is not labeler]
            record |= rank_for_measuring(config, prompt, answers, others)
        yield record


def rank_for_measuring(config, prompt, answers, other_labelers):
    """What eval.py and the agreement of labelers are computed from. It has its own random
    generator, so that measuring does not change the comparisons. Held-out labelers have the default
    biases."""
    rng = random.Random(f"measure {prompt.text} {config.seed}")
    heldout_labelers = rng.sample(make_labelers("held-out"), 2)
    return dict(second_ranking=rng.choice(other_labelers).rank(prompt, answers, rng),
                heldout_rankings=[labeler.rank(prompt, answers, rng)
                                  for labeler in heldout_labelers],
                utilities=[utility(prompt, text, ended) for text, ended in answers])


def label_by_hand(config, model, tokenizer):
    """Asks for 20 comparisons, with other prompts on every run; each is saved immediately. Prompts
    may come from a file (docs/using.md)."""
    config = replace(config, k=2, seed=time.time_ns())
    prompts = read_prompts(config.prompts, "train", config.seed)
    longest = model.config.block_size - config.max_new_tokens
    prompts = drop_long_prompts(tokenizer, prompts, longest)
    prompts = random.Random(config.seed).sample(prompts, min(20, len(prompts)))
    with open(f"{config.out}/labels.jsonl", "a", encoding="utf-8") as file:
        for record in collect(config, model, tokenizer, prompts, [Person()], "train"):
            write_comparison(file, record)
            file.flush()


def main():
    config = read_flags(__doc__, Config)
    check(config.k == 0 or config.k >= 2, f"--k {config.k}: a ranking needs at least 2 answers "
          "(0 draws 4 to 9)")
    check(config.me or is_small_world(config.prompts), "labelers are simulated for prompts of the "
          "small world; rank answers to prompts of your own with --me")
    device = setup(config)
    model, tokenizer = load_gpt(f"{config.out}/{config.init_from}.pt", device)
    if config.me:
        return label_by_hand(config, model, tokenizer)

    start_time, out = time.time(), Path(config.out)
    labelers = make_labelers("train", Biases(config.length_bias, config.sycophancy_bias,
                                             config.confidence_bias, config.doubt_bias))
    train_prompts = read_prompts(config.prompts, "train", config.seed)
    valid_prompts = read_prompts(config.heldout_prompts, "valid", config.seed)
    train = list(collect(config, model, tokenizer, train_prompts, labelers, "train"))
    valid = list(collect(config, model, tokenizer, valid_prompts, labelers, "valid"))
    with atomic_write(out / "comparisons.jsonl") as file:
        for record in train + valid:
            write_comparison(file, record)

    agreement = rank_agreement([(record["ranking"], record["second_ranking"]) for record in valid])
    seconds = time.time() - start_time
    # step -1 marks the last line of a log, as in tools/training.py
    with atomic_write(out / "metrics" / "compare.jsonl") as file:
        file.write(json.dumps(dict(step=-1, agreement=agreement, seconds=seconds)) + "\n")
    print(f"{out / 'comparisons.jsonl'}: {len(train + valid):,} rankings; two labelers agree on "
          f"{agreement:.1%} of pairs, in {seconds:.0f} s")


if __name__ == "__main__":
    main()
