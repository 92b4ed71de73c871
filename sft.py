"""Step 1: imitate. Next-token prediction on documents (pretrain), then on demonstrations (sft).

Both minimise the same loss, -log pi(token | tokens before it), averaged over the tokens under the
mask. In pretraining the mask is all ones; in supervised fine-tuning it covers the response and its
end-of-text token, never the prompt (InstructGPT, arXiv 2203.02155, section 3.5; hyperparameters
appendix C.1 and C.3).

    python sft.py --stage pretrain   documents of the small world                 -> out/base.pt
    python sft.py --stage sft        out/base.pt, demonstrations, 10 % documents  -> out/sft.pt

--documents and --demonstrations also take a file of your own (formats: data/source.py).
"""

from dataclasses import dataclass

# first, since it says how torch's threads wait
from plumbing import (Steps, Training, check, cosine, flags, muon_and_adam, prepare, run, set_lr,
                      start)
import torch

from data.batches import (by_length, collate, encode_example, fitting, pack, pieces,
                          rows_that_fit, windows)
from data.source import demonstrations, documents, number_or_file, prompts
from data.tokenizer import Tokenizer, train_ranks
from model import (GPT, GPTConfig, load_gpt, masked_mean, rows_cached, sample, save,
                   token_logprobs)


@dataclass(frozen=True)
class Config(Training):
    stage: str = "sft"             # pretrain or sft
    begin: str = "base"            # sft: checkpoint in --out to begin with
    vocab_size: int = 1024         # pretrain: byte-pair ranks plus the end-of-text token
    block_size: int = 128          # pretrain: context in tokens; paper 2,048
    n_layer: int = 4               # pretrain: blocks
    n_head: int = 3                # pretrain: heads
    n_embd: int = 96               # pretrain: channels
    dropout: float = 0.0           # pretrain: kept for sft; paper 0.2 for its SFT baseline
    documents: number_or_file = 12000      # documents of the small world, or a text file
    steps: int = 2600              # pretrain: optimiser steps
    pretrain_lr: float = 2e-3      # pretrain: peak learning rate of embeddings and vectors (Adam)
    pretrain_muon_lr: float = 0.01 # pretrain: peak learning rate of the blocks' matrices (Muon)
    demonstrations: number_or_file = 8000  # sft: of the small world, or a file; paper 12,725
    epochs: int = 2                # sft: passes over them; paper 2 for the model PPO starts from
    lr: float = 1e-3               # sft: peak learning rate (Adam); paper 2.45e-6 to 1.04e-5
    muon_lr: float = 0.005         # sft: peak learning rate (Muon)
    batch: int = 32                # sft: sequences a step; paper 32
    pretrain_batch: int = 16       # pretrain: windows a step
    mix: float = 0.1               # sft: pretraining batches per batch of demonstrations; paper 0.1
    weight_decay: float = 0.1      # of the blocks' matrices; not printed in the paper


# --- loss -----------------------------------------------------------------------------------------


def lm_loss(logits, tokens, mask):
    """Mean over masked tokens of -log pi. (B, T, V), (B, T), (B, T) -> ()"""
    return -masked_mean(token_logprobs(logits, tokens), mask[:, 1:])


# --- data -----------------------------------------------------------------------------------------


def pretraining_batches(config, stream, generator):
    """Windows of block_size tokens from anywhere in the text."""
    return [windows(stream, config.pretrain_batch, config.block_size, generator)
            for _ in range(config.steps)]


def sft_batches(config, examples, stream, generator):
    """Demonstrations of like length, and a share of pretraining batches of about as many tokens, if
    there is text for them."""
    lengths, batches = [len(prompt) + len(response) for prompt, response in examples], []
    for _ in range(config.epochs):
        for rows in by_length(lengths, config.batch, generator):
            batches.append(collate([examples[i] for i in rows]))
            if torch.rand((), generator=generator) < config.mix and len(stream):
                batches.append(windows(stream, max(1, config.batch // 4), config.block_size,
                                       generator))
    return batches


# --- evaluation -----------------------------------------------------------------------------------


@torch.no_grad()
def heldout_loss(model, batches, device):
    """Mean of lm_loss over batches, each weighted by its masked tokens."""
    total = count = 0
    size = rows_that_fit(model.config)
    for tokens, mask in (part for batch in batches for part in pieces(size, *batch)):
        tokens, mask = tokens.to(device), mask.to(device)
        n = mask[:, 1:].sum().item()
        total, count = total + n * lm_loss(model(tokens), tokens, mask).item(), count + n
    return total / count


PAGE = ("Q: What do cows eat?\nA: Cows eat grass.\n"
        "Q: Say this politely: Show me the red hat!\nA: Please show me the red hat.\n"
        "Q: How much is 2 plus 3?\nA: 2 plus 3 is 5.\n")


def few_shot_prompt(tokenizer, question):
    return tokenizer.encode(f"{PAGE}Q: {question}\nA:")


def few_shot_answers(model, tokenizer, questions, max_new_tokens, temperature=0.0, generator=None):
    """The paper's "GPT-3 prompted": a question ends a page of answers. -> [(answer, ended)]"""
    prompts = [few_shot_prompt(tokenizer, question) for question in questions]
    newline, answers = tokenizer.encode("\n")[0], []
    batch = rows_cached(model.config, model.config.block_size)
    for rows in (prompts[i:i + batch] for i in range(0, len(prompts), batch)):
        tokens, mask = sample(model, rows, max_new_tokens, temperature, newline, generator)
        answers += [row[kept.bool()].tolist() for row, kept in zip(tokens, mask)]
    return [(tokenizer.decode(ids).strip(), ids[-1] == newline or tokenizer.eot in ids)
            for ids in answers]


def few_shot_exact(model, tokenizer, asked):
    """The share of the prompts with exactly one answer that get it, greedily, on that page."""
    asked = [p for p in asked if p.one_answer]
    answers = few_shot_answers(model, tokenizer, [p.text for p in asked], max_new_tokens=24)
    return sum(answer == p.good for (answer, _), p in zip(answers, asked)) / len(asked)


# --- training -------------------------------------------------------------------------------------


def schedule(stage, done):
    """The factor of the learning rates when a share `done` of the steps is behind us."""
    if stage == "pretrain":
        return min(1, 0.02 + 25 * done, 2 * (1 - done))    # warm-up, constant, second half to 0
    return cosine(done)


def main():
    config = flags(Config, __doc__)
    check(config.stage in ("pretrain", "sft"), f"--stage is pretrain or sft, not {config.stage}")
    check(config.n_embd % config.n_head == 0 and config.n_embd % 2 == 0,
          f"--n-embd {config.n_embd} must be even and a multiple of --n-head {config.n_head}")
    check(config.vocab_size >= 512 and config.documents not in range(50),
          "--vocab-size must be at least 512, --documents at least 50")
    check(0 <= config.dropout < 1 and 0 <= config.mix <= 1,
          "--dropout is 0 to below 1, --mix 0 to 1")
    device, generator = start(config)
    name = "base" if config.stage == "pretrain" else "sft"
    steps = Steps(config, config.stage, name)

    own = isinstance(config.documents if config.stage == "pretrain" else config.demonstrations, str)
    with_text = config.stage == "pretrain" or not own or isinstance(config.documents, str)
    text = documents(config.documents, config.seed) if with_text else []   # of the same kind
    asked = [] if own else prompts(1200, "eval", config.seed)       # the page speaks of the world
    if config.stage == "pretrain":
        tokenizer = Tokenizer(train_ranks("\n".join(text[:2000]), config.vocab_size - 1))
        longest = max((len(few_shot_prompt(tokenizer, p.text)) for p in asked), default=0)
        check(longest + 4 < config.block_size, f"the few-shot page and a question take {longest} "
              f"tokens: --block-size {config.block_size} or --vocab-size {config.vocab_size} is "
              "too small")
        model = GPT(GPTConfig(tokenizer.vocab_size, config.block_size, config.n_layer,
                              config.n_head, config.n_embd, config.dropout)).to(device)
        batches = pretraining_batches(config, pack(tokenizer, text), generator)
        heldout = [windows(pack(tokenizer, documents(config.documents, which="held-out", n=200)),
                           64, config.block_size, generator)]
    else:
        model, tokenizer = load_gpt(f"{config.out}/{config.begin}.pt",
                                    "python sft.py --stage pretrain", device)
        demos = {which: [encode_example(tokenizer, p.text, answer) for p, answer in
                         demonstrations(config.demonstrations, config.seed, which, n)]
                 for which, n in [("train", None), ("valid", 300)]}
        demos = {which: fitting(examples, model.config.block_size, f"{which} demonstrations")
                 for which, examples in demos.items()}
        batches = sft_batches(config, demos["train"], pack(tokenizer, text), generator)
        heldout = [collate(demos["valid"])]

    peaks = ((config.pretrain_muon_lr, config.pretrain_lr) if config.stage == "pretrain"
             else (config.muon_lr, config.lr))
    optimizers = muon, adam = muon_and_adam(model, *peaks, config.weight_decay)
    prepare(config, model).train()
    learned_from = [tokens for tokens, _ in batches]
    for step in steps.upto(len(batches), learned_from, model=model, muon=muon, adam=adam):
        tokens, mask = (x.to(device) for x in batches[step])
        loss, learned = 0.0, mask[:, 1:].sum()
        for x, m in pieces(config.microbatch, tokens, mask):
            part = lm_loss(model(x), x, m) * (m[:, 1:].sum() / learned)
            part.backward()
            loss += part.detach()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, peak in zip(optimizers, peaks):
            set_lr(optimizer, peak * schedule(config.stage, step / len(batches)))
            optimizer.step()
            optimizer.zero_grad()
        steps.log(step, loss=loss, norm=norm)

    model.eval()
    found = dict(heldout_loss=heldout_loss(model, heldout, device))
    reached = f"{config.out}/{name}.pt: held-out loss {found['heldout_loss']:.3f}"
    if not own:
        found["few_shot"] = few_shot_exact(model, tokenizer, asked)
        reached += f", few-shot exact {found['few_shot']:.0%}"
    save(f"{config.out}/{name}.pt", name, model, model.config, tokenizer)
    steps.end(reached, **found)


if __name__ == "__main__":
    run(main)
