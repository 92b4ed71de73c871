"""Step 2: what people prefer. Collect rankings of K answers a prompt, then fit a scalar to them.

1 sample   K answers to each prompt, K drawn from 4 to 9 as in the paper: one by a labeler, the
           others by the SFT model
2 rank     a labeler ranks the different ones; one line a prompt in out/comparisons.jsonl
3 fit      all C(K,2) pairs of a prompt as one element of the batch, K forward passes
           (arXiv 2203.02155, eq. 1)
4 shift    the bias, so that demonstrations score 0 on average (section 3.5)

    python reward.py          out/sft.pt, prompts, labelers -> out/comparisons.jsonl, out/reward.pt
    python reward.py --label  you are the labeler; adds to out/labels.jsonl, which
                              reward.py and dpo.py then learn from: --comparisons out/labels.jsonl

--comparisons takes any file of preferences, --prompts (with --label) and --demonstrations files of
your own (formats: data/source.py).
"""

import dataclasses
import itertools
import random
import time
from dataclasses import dataclass

# first, since it says how torch's threads wait
from plumbing import (Steps, Training, check, cosine, flags, muon_and_adam, prepare, run, set_lr,
                      start)
import torch
from torch import nn
from torch.nn import functional as F

from data import comparisons
from data.batches import batches_of_prompts, collate, encode_example, fitting, pieces
from data.comparisons import length_slope, pair_accuracy, places
from data.labelers import Biases, Person, agreement, pool
from data.source import demonstrations, number_or_file, prompts
from data.utility import gold
from data.world import demonstrate
from model import (GPT, last_index, load, load_gpt, load_weights, respond, save,
                   token_logprobs)


@dataclass(frozen=True)
class Config(Training):
    begin: str = "sft"             # checkpoint in --out that answers and becomes the reward model
    prompts: number_or_file = 4000         # prompts with rankings to train on; paper 33,207
    demonstrations: number_or_file = 500   # that score 0 on average in the end, or a file of them
    heldout_prompts: int = 300     # prompts with rankings to measure on
    k: int = 0                     # answers a prompt; 0 draws it from 4 to 9 as in the paper
    max_new_tokens: int = 48       # longest answer
    length_bias: float = 0.15      # what labelers add for e times as many words
    agreement_bias: float = 0.3    # what labelers add when an answer agrees with a false premise
    confidence_bias: float = 0.0   # what labelers add when an answer invents something
    doubt_bias: float = 0.0        # what labelers add when an answer says "I do not know"
    fold: int = -1                 # 0 to 4: that fifth of the training labelers is held out
    label: bool = False            # you rank up to 20 pairs at the keyboard, no training
    comparisons: str = ""          # learn from this file instead of collecting rankings
    contrast: int = 0              # so many more pairs, careful answer above the pleasing one
    shuffle_pairs: bool = False    # each pair an element of its own, against the paper's advice
    epochs: int = 1                # passes over the comparisons; paper 1
    batch: int = 6                 # prompts a step, each with all its pairs; paper 64
    likelihood: bool = True        # add the answer's log-likelihood; paper: no
    lr: float = 5e-4               # peak learning rate (Adam); paper 9e-6
    muon_lr: float = 0.003         # peak learning rate of the blocks' matrices (Muon)


# --- loss -----------------------------------------------------------------------------------------


class RewardModel(nn.Module):
    """A GPT with a scalar head; ppo.py's value function is one too.

    scalar = head(hidden) + likelihood * log p(all tokens so far), the log-probs of its own
    unembedding. A generator knows which word does not belong long before a new head has learned to
    read it off the hidden state. The share of the prompt is the same for all of its answers.
    """

    def __init__(self, gpt, likelihood=0.3):
        # differs from the paper: the head stands beside the unembedding, not in its place
        super().__init__()
        self.gpt = gpt
        self.head = nn.Linear(gpt.config.n_embd, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.likelihood = nn.Parameter(torch.tensor(likelihood), requires_grad=likelihood != 0)

    def forward(self, tokens):
        """(B, T) -> (B, T), a scalar per position."""
        hidden = self.gpt.hidden(tokens)
        logp = token_logprobs(self.gpt.lm_head(hidden), tokens)                  # (B, T-1)
        return self.head(hidden).squeeze(-1) + self.likelihood * F.pad(logp.cumsum(dim=1), (1, 0))


def score(per_token, mask):
    """The scalar at the last response token. (B, T), (B, T) -> (B,)"""
    return per_token.gather(1, last_index(mask)[:, None]).squeeze(1)


def preference_loss(score_w, score_l):
    """-log sigmoid(r_w - r_l), Bradley-Terry's likelihood (eq. 1, one pair). (N,), (N,) -> ()"""
    return -F.logsigmoid(score_w - score_l).mean()


def ranking_loss(scores):
    """Eq. 1 for K answers a prompt: the mean over all C(K,2) pairs, each prompt one element.
    (B, K) best first -> ()"""
    better, worse = torch.combinations(torch.arange(scores.shape[1]), 2).unbind(dim=1)
    return preference_loss(scores[:, better], scores[:, worse])


def load_reward(path, device="cpu"):
    """-> RewardModel in evaluation mode, for scoring or as an initial value function"""
    config, _, weights = load(path, "python reward.py", device)
    model = load_weights(RewardModel(GPT(config)).to(device), weights, path)
    model.likelihood.requires_grad_(model.likelihood.item() != 0)    # a plain head stays plain
    return model


# --- comparisons ----------------------------------------------------------------------------------


def collect(config, model, tokenizer, which, asked, labelers):
    """Yields records for comparisons.jsonl. --k is for training, not for what is held out."""
    rng, k = random.Random(f"collect {which} {config.seed}"), config.k * (which == "train")
    count = [k or rng.randint(4, 9) for _ in asked]
    texts = [prompt.text for prompt, k in zip(asked, count) for _ in range(k - 1)]
    drawn = iter(respond(model, tokenizer, texts, config.max_new_tokens))                 # 1 sample
    for prompt, k in zip(asked, count):
        # differs from the paper: one of the K answers is a labeler's
        demonstration = encode_example(tokenizer, prompt.text, demonstrate(rng, prompt))[1]
        ids = [tuple(demonstration)] + [tuple(next(drawn)) for _ in range(k - 1)]
        ids = [list(row) for row in dict.fromkeys(ids)]                                # distinct
        if len(ids) < 2:
            continue
        answers = [(tokenizer.decode(row), row[-1] == tokenizer.eot) for row in ids]
        labeler = rng.choice(labelers)
        yield dict(prompt=prompt.text, responses=[answer for answer, _ in answers],
                   ranking=labeler.rank(prompt, answers, rng),                            # 2 rank
                   ids=ids, labeler=labeler.name, split=which)


def label(config, model, tokenizer):
    """20 pairs for whoever sits at the keyboard; an interrupt keeps what was answered."""
    other = dataclasses.replace(config, k=2, seed=time.time_ns())            # new prompts each time
    asked = prompts(20 if isinstance(config.prompts, int) else config.prompts, "train", other.seed)
    asked = random.Random(other.seed).sample(asked, min(20, len(asked)))
    comparisons.append(f"{config.out}/labels.jsonl",
                       collect(other, model, tokenizer, "train", asked, [Person()]))


def labelers(config, group):
    """The labelers of 'train' or 'held-out'; with --fold, training labelers in both."""
    return pool(group, Biases(config.length_bias, config.agreement_bias, config.confidence_bias,
                              config.doubt_bias), config.fold)


# --- evaluation -----------------------------------------------------------------------------------


@torch.no_grad()
def score_all(model, examples, device, batch=128):
    """[(prompt ids, response ids)] -> a list of scores."""
    scores = [0.0] * len(examples)
    order = sorted(range(len(examples)), key=lambda i: sum(map(len, examples[i])))
    for rows in (order[i:i + batch] for i in range(0, len(order), batch)):
        tokens, mask = collate([examples[i] for i in rows])
        for i, value in zip(rows, score(model(tokens.to(device)), mask.to(device)).tolist()):
            scores[i] = value
    return scores


def judged(known, tokenizer, items):
    """Items whose prompts are in `known`, {text: prompt} -> [(prompt, [(answer, ended), ...])]."""
    texts = [tokenizer.decode(prompt).removesuffix("\n") for prompt, _ in items]
    return [(known[text], [(tokenizer.decode(ids), ids[-1] == tokenizer.eot) for ids in responses])
            for text, (_, responses) in zip(texts, items) if text in known]


def heldout_accuracies(config, model, items, of_the_world, device):
    """Held-out accuracy of the reward model and of two baselines; how often labelers agree.

    items, of_the_world: by split, all comparisons and what `judged` made of the small world's.
    """
    flat = iter(score_all(model, [(prompt, ids) for prompt, responses in items["valid"]
                                  for ids in responses], device))
    scores = [[next(flat) for _ in responses] for _, responses in items["valid"]]
    best_first = [places(range(len(s))) for s in scores]
    tokens = [[len(ids) for ids in responses] for _, responses in items["valid"]]
    longer = pair_accuracy(tokens, best_first)
    found = dict(accuracy_labels=pair_accuracy(scores, best_first), longer_is_preferred=longer,
                 shorter_is_preferred=1 - longer)
    seen, valid = of_the_world["train"], of_the_world["valid"]
    if len(valid) < len(scores):
        return found                            # other people's prompts: the truth is not known
    seen, heldout, rng = (valid + seen)[:1000], labelers(config, "held-out"), random.Random(0)
    others = [places(rng.choice(heldout).rank(prompt, answers, rng)) for prompt, answers in valid]
    truth = [[gold(prompt, *answer) for answer in answers] for prompt, answers in valid]
    words = [[len(answer.split()) for answer, _ in answers] for _, answers in valid]
    return found | dict(
        accuracy_heldout_labelers=pair_accuracy(scores, others),
        accuracy_gold=pair_accuracy(scores, truth),
        longer_wins=pair_accuracy(words, truth), shorter_wins=1 - pair_accuracy(words, truth),
        length_slope=length_slope(*(sum(x, []) for x in (scores, truth, words))),
        agreement=agreement(labelers(config, "train"), seen, rng),
        agreement_heldout=agreement(heldout, seen, rng))


# --- main -----------------------------------------------------------------------------------------


def main():
    config = flags(Config, __doc__)
    check(config.k == 0 or config.k >= 2,
          f"--k {config.k}: a ranking needs at least 2 answers (0 draws 4 to 9)")
    check(-1 <= config.fold < 5, f"--fold {config.fold}: 0 to 4, or -1 for the held-out pool")
    device, generator = start(config)
    gpt, tokenizer = load_gpt(f"{config.out}/{config.begin}.pt", "python sft.py", device)
    if config.label:
        return label(config, gpt, tokenizer)
    check(isinstance(config.prompts, int), "--prompts with a file needs --label: the labelers only "
          "know the small world; rankings of your own come in by --comparisons FILE")
    steps = Steps(config, "reward")

    seen, unseen = (prompts(config.prompts, "train", config.seed),
                    prompts(config.heldout_prompts, "valid", config.seed))
    path = config.comparisons or f"{config.out}/comparisons.jsonl"
    if not config.comparisons and not steps.goes_on:
        judges = labelers(config, "train")
        comparisons.write(path, itertools.chain(
            collect(config, gpt, tokenizer, "train", seen, judges),
            comparisons.contrasting(config.contrast, config.seed, tokenizer),
            collect(config, gpt, tokenizer, "valid", unseen, judges)))
    items = comparisons.read(path, tokenizer, gpt.config.block_size)
    train = ([(prompt, list(pair)) for prompt, responses in items["train"]
              for pair in itertools.combinations(responses, 2)]
             if config.shuffle_pairs else items["train"])

    model = RewardModel(gpt, 0.3 * config.likelihood).to(device)                          # 3 fit
    optimizers = muon, adam = muon_and_adam(model, config.muon_lr, config.lr)
    batches = [rows for _ in range(config.epochs)
               for rows in batches_of_prompts(train, config.batch, generator)]
    prepare(config, model)
    for step in steps.upto(len(batches), train, model=model, muon=muon, adam=adam):
        rows = batches[step]
        tokens, mask = collate([(train[i][0], response) for i in rows for response in train[i][1]])
        K, loss, best_wins = len(tokens) // len(rows), 0.0, 0.0
        for x, m in pieces(config.microbatch and max(1, config.microbatch // K) * K, tokens, mask):
            scores = score(model(x.to(device)), m.to(device)).view(-1, K)                 # (B, K)
            part = ranking_loss(scores) * (len(scores) / len(rows))
            part.backward()
            loss += part.detach()
            best_wins += (scores[:, :1] > scores[:, 1:]).float().mean() * (len(scores) / len(rows))
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, peak in zip(optimizers, (config.muon_lr, config.lr)):
            set_lr(optimizer, peak * cosine(step / len(batches)))
            optimizer.step()
            optimizer.zero_grad()
        steps.log(step, loss=loss, norm=norm, best_wins=best_wins)

    known = {p.text: p for p in seen + unseen}
    of_the_world = {which: judged(known, tokenizer, items[which]) for which in items}
    own = len(of_the_world["valid"]) < len(items["valid"])
    if own and isinstance(config.demonstrations, int):       # the small world's say nothing of them
        demos = [(prompt, responses[0]) for prompt, responses in items["train"]]
    else:
        demos = fitting([encode_example(tokenizer, prompt.text, answer) for prompt, answer in
                         demonstrations(config.demonstrations, config.seed)],
                        gpt.config.block_size, "demonstrations")
    with torch.no_grad():                                                                 # 4 shift
        model.head.bias -= sum(score_all(model, demos, device)) / len(demos)
    found = heldout_accuracies(config, model, items, of_the_world, device)
    save(f"{config.out}/reward.pt", "reward", model, gpt.config, tokenizer)
    reached = (f"right on {found['accuracy_gold']:.1%} of truly ordered pairs, "
               f"on {found['accuracy_labels']:.1%} of labels; "
               f"labelers agree on {found['agreement']:.1%}" if "agreement" in found
               else f"right on {found['accuracy_labels']:.1%} of held-out pairs, on which the "
                    f"longer answer is preferred in {found['longer_is_preferred']:.1%}")
    steps.end(f"{config.out}/reward.pt: {reached}", **found)


if __name__ == "__main__":
    run(main)
