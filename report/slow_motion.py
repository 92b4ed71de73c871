"""One step of every stage in slow motion: a real prompt through a finished run, in small tables.

    python -m report.slow_motion --out out                   prints them
    python -m report.slow_motion --out out --html slow.html  writes them as a page too

All numbers come from the functions that are named under each equation. They are rounded to four
decimals; a pocket calculator may differ in the last one.
"""

import copy
import html
import json
import textwrap
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

import dpo
import ppo
from data.batches import collate, encode_prompt
from data.files import read_prompts
from experiments.closed_form import closed_form, kl
from generate import respond
from later.grpo import group_advantages
from later.verifiers import make_checkable, strict
from model import token_logprobs
from pretrain import lm_loss
from reward import load_reward, pair_indices, preference_loss, ranking_loss, score_all
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import Flags, atomic_write, check, read_flags
from tools.optimizers import make_adam

NAMES = "ABCD"
TEMPLATE = Path(__file__).with_name("slow_motion.html")


@dataclass(frozen=True)
class Config(Flags):
    number: int = 14               # which of the short held-out comparisons
    html: str = ""                 # also write a page to this file


# --- output ---------------------------------------------------------------------------------------


class Page:
    """Prints what it is given, and keeps it as HTML."""

    def __init__(self):
        self.parts = []

    def chapter(self, title):
        print(f"\n\n--- {title} {'-' * (94 - len(title))}")
        self.parts.append(f"<h2>{html.escape(title)}</h2>")

    def say(self, text):
        print("\n" + textwrap.fill(text, 98))
        self.parts.append(f"<p>{html.escape(text)}</p>")

    def equation(self, text, source):
        print("\n" + textwrap.indent(f"{text}\n[{source}]", "    "))
        self.parts.append(f"<pre>{html.escape(text)}</pre>")
        self.parts.append(f'<p class="faint">{html.escape(source)}</p>')

    def table(self, header, rows, totals=()):
        """Cells are text, whole numbers or floats; totals are rows below a line."""
        cells = [[format_cell(cell) for cell in row] for row in (header, *rows, *totals)]
        widths = [max(map(len, column)) for column in zip(*cells)]
        lines, html_rows = [], []
        for number, row in enumerate(cells):
            if number in (1, len(cells) - len(totals)):
                lines.append("-" * (sum(widths) + 2 * len(widths) - 2))
            first = row[0].ljust(widths[0])
            others = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
            lines.append("  ".join([first, *others]))
            tag = "td" if number else "th"
            total = ' class="total"' if number >= len(cells) - len(totals) else ""
            html_cells = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
            html_rows.append(f"<tr{total}>{html_cells}</tr>")
        print("\n" + textwrap.indent("\n".join(lines), "  "))
        self.parts.append(f'<div class="wide"><table>{"".join(html_rows)}</table></div>')

    def write(self, path):
        with atomic_write(path) as file:
            file.write(TEMPLATE.read_text("utf-8").replace("PARTS", "\n".join(self.parts)))


def format_cell(cell):
    if isinstance(cell, float):
        return f"{round(cell, 4) + 0.0:.4f}"                 # no "-0.0000"
    return str(cell)


def spell(tokenizer, ids):
    """The tokens as text, a space as a middle dot."""
    tokens = []
    for token in ids:
        text = tokenizer.decode([token]).replace(" ", "·").replace("\n", "\\n")
        tokens.append("<end>" if token == tokenizer.eos else text)
    return tokens


# --- 1 SFT ----------------------------------------------------------------------------------------


def show_sft(page, sft, tokenizer, x, y):
    page.chapter("1 SFT: the loss of a demonstration")
    page.say("Prompt and demonstration are one row of tokens; the mask is 1 on the demonstration "
             "with its <end>. The logits at position t depend on tokens 0 to t and predict token "
             "t + 1.")
    page.equation("loss = -sum(mask * log pi) / sum(mask)",
                  "InstructGPT section 3.5; pretrain.py lm_loss, model.py token_logprobs")
    tokens, mask = collate([(x, y)])
    logits = sft(tokens)
    logp = token_logprobs(logits, tokens)[0].tolist()
    names, rows = spell(tokenizer, x + y), []
    for t in range(1, len(names)):
        counted = -logp[t - 1] if mask[0, t] else ""
        rows.append([t, names[t], int(mask[0, t]), f"{t - 1} {names[t - 1]}", logp[t - 1], counted])
    page.table(["t", "token", "mask", "logits at", "log pi", "-log pi"],
               [[0, names[0], 0, "", "", ""], *rows],
               [["", "mean over", len(y), "", "", lm_loss(logits, tokens, mask).item()]])


# --- 2 reward model -------------------------------------------------------------------------------


def show_ranking(page, answers, scores, labeler):
    page.chapter("2 Reward model: a ranking, its pairs, their loss")
    page.say(f"The labeler '{labeler}' ranked the answers, best first. The reward model gives each "
             "a score, a scalar read at its last token.")
    page.table(["", "answer", "score r"], [[NAMES[i], text, score] for i, (text, score) in
                                           enumerate(zip(answers, scores.tolist()))])
    page.equation("loss = -mean over pairs of log sigmoid(r_w - r_l)",
                  "InstructGPT eq. 1; reward.py pair_indices, preference_loss, ranking_loss")
    rows = []
    for w, l in zip(*pair_indices(len(answers))):
        margin = scores[w] - scores[l]
        rows.append([f"{NAMES[w]} > {NAMES[l]}", margin.item(), torch.sigmoid(margin).item(),
                     preference_loss(scores[w], scores[l]).item()])
    page.table(["pair", "r_w - r_l", "P(w is better)", "-log P"], rows,
               [["mean", "", "", ranking_loss(scores[None]).item()]])


# --- 3 PPO ----------------------------------------------------------------------------------------


def make_batch(config, sft, tokenizer, x):
    """-> ppo.Config, the policy, 64 episodes of it, the first one an answer to x, the score of this
    one, log-probs of the reference and rewards of all"""
    ppo_config = ppo.Config(out=config.out, seed=config.seed)
    policy, _ = load_gpt(f"{config.out}/ppo.pt", partner=(sft, tokenizer))
    reward_model = load_reward(f"{config.out}/reward.pt", partner=(sft, tokenizer))
    prompts = [x]
    for prompt in read_prompts(63, "valid", config.seed):
        prompts.append(encode_prompt(tokenizer, prompt.text))
    batch, _ = ppo.rollout(ppo_config, policy, sft, reward_model, reward_model.score_responses,
                           prompts, tokenizer.eos)
    response_mask = F.pad(batch.mask, (1, 0))
    with torch.no_grad():
        ref_logp = token_logprobs(sft(batch.tokens), batch.tokens)
        scores = reward_model.score_responses(batch.tokens, response_mask)
    reward = ppo.shaped_rewards(scores, batch.old_logprobs, ref_logp, batch.mask, ppo_config.beta)
    return ppo_config, policy, batch, scores[0].item(), ref_logp, reward


def of_first(batch, *arrays):
    """The values of the first episode's actions, a list per array (B, T-1)."""
    return [array[0][batch.mask[0] > 0].tolist() for array in arrays]


def show_rewards(page, config, tokens, batch, score, ref_logp, reward):
    page.chapter("3 PPO: an episode, token by token")
    page.say("The trained policy answers. SFT, the reference, gives each token a log-probability.")
    page.equation(f"reward = -beta (log pi - log pi^SFT), plus r(x, y) at the last token;  "
                  f"beta = {config.beta}",
                  "InstructGPT eq. 2, per token; ppo.py shaped_rewards")
    logp, ref, rewards = of_first(batch, batch.old_logprobs, ref_logp, reward)
    rows = []
    for i, token in enumerate(tokens):
        last = score if i == len(tokens) - 1 else ""
        rows.append([token, logp[i], ref[i], logp[i] - ref[i], last, rewards[i]])
    page.table(["token", "log pi", "log pi^SFT", "log-ratio", "r(x, y)", "reward"], rows,
               [["sum", sum(logp), sum(ref), sum(logp) - sum(ref), score, sum(rewards)]])
    page.say("The sum of the log-ratios is one sample of the KL divergence of the policy from SFT; "
             "a sample may be negative, the KL cannot.")


def show_advantages(page, config, tokens, batch, reward):
    page.say("V estimates the return before the token is chosen. (A run does not save its value "
             "function, so this is the reward model, its initialisation.) delta is the error of V "
             "over one step. A sums the deltas from this token on, discounted by lambda; it is "
             "computed from the last token upwards.")
    page.equation("delta_t = reward_t + V_(t+1) - V_t,  V = 0 after the last\n"
                  f"A_t = delta_t + lambda A_(t+1),  lambda = {config.lam};  return_t = A_t + V_t",
                  "GAE (1506.02438) eq. 16 with gamma = 1; ppo.py gae")
    adv, ret = ppo.gae(reward, batch.old_values, batch.mask, 1.0, config.lam)
    values, rewards, advantages, returns, whitened = of_first(batch, batch.old_values, reward, adv,
                                                              ret, batch.advantages)
    rows = []
    for i, token in enumerate(tokens):
        next_value = values[i + 1] if i + 1 < len(tokens) else 0.0
        delta = rewards[i] + next_value - values[i]
        rows.append([token, rewards[i], values[i], next_value, delta, advantages[i], returns[i],
                     whitened[i]])
    page.table(["token", "reward", "V", "next V", "delta", "A", "return", "whitened A"], rows)
    inside = adv[batch.mask > 0]
    page.say(f"The batch has 64 episodes, of which this is one. Over its {len(inside)} actions A "
             f"has mean {inside.mean():.4f} and standard deviation {inside.std(correction=0):.4f}; "
             "whitened A = (A - mean) / deviation (ppo.py whiten).")


def show_update(page, config, tokens, policy, batch):
    page.say("One optimizer step on these episodes, first with the learning rate of ppo.py, then "
             "with ten times as much, so that the clip acts more often. Before the step the loss "
             "is 0, since A is whitened; a step that is too large may raise it. The term is the "
             "smaller of the two products, and where that is the clipped one it has no gradient.")
    page.equation(f"term = min(ratio A, clip(ratio, {1 - config.clip}, {1 + config.clip}) A)\n"
                  "ratio = pi / pi_old;  loss = -mean of all terms",
                  "PPO (1707.06347) eq. 7; ppo.py policy_loss, update_policy")
    for lr in (config.lr, 10 * config.lr):
        new_policy = copy.deepcopy(policy)
        ppo.update_policy(config, new_policy, make_adam(new_policy.parameters(), lr), batch, None)
        with torch.no_grad():
            new_logp = token_logprobs(new_policy(batch.tokens), batch.tokens)
            loss, stats = ppo.policy_loss(new_logp, batch.old_logprobs, batch.advantages,
                                          batch.mask, config.clip)
        old, new, adv = of_first(batch, batch.old_logprobs, new_logp, batch.advantages)
        rows = []
        for i, token in enumerate(tokens):
            ratio = torch.tensor(new[i] - old[i]).exp().item()
            clipped = min(max(ratio, 1 - config.clip), 1 + config.clip)
            term = min(ratio * adv[i], clipped * adv[i])
            acts = "clipped" if clipped * adv[i] < ratio * adv[i] else ""
            rows.append([token, adv[i], old[i], new[i], ratio, ratio * adv[i], clipped * adv[i],
                         term, acts])
        page.table(["token", "A", "log old", "log new", "ratio", "ratio A", "clip A", "term", ""],
                   rows)
        page.say(f"Learning rate {lr:g}: over all 64 episodes the loss is now {loss:.4f}, and the "
                 f"clip acts on {stats['clip_fraction']:.1%} of the actions.")


# --- 4 DPO ----------------------------------------------------------------------------------------


def show_dpo(page, config, sft, tokenizer, x, best, worst):
    page.chapter("4 DPO: the best and the worst answer")
    beta = dpo.Config().beta
    page.say("y_w is A, y_l the last answer. No reward model and no sampling: beta times the "
             "log-ratio of a whole answer takes the place of the score in eq. 1.")
    page.equation("margin = beta [(log pi - log pi^SFT)(y_w) - (log pi - log pi^SFT)(y_l)]\n"
                  f"loss = -log sigmoid(margin);  beta = {beta}",
                  "DPO (2305.18290) eq. 7; dpo.py sequence_logprob, dpo_loss")
    policy, _ = load_gpt(f"{config.out}/dpo.pt", partner=(sft, tokenizer))
    ref_w, ref_l = dpo.logprob_all(sft, [(x, best), (x, worst)], "cpu").split(1)
    rows = []
    for name, model in (("before: pi = SFT", sft), ("after dpo.py", policy)):
        pi_w, pi_l = dpo.logprob_all(model, [(x, best), (x, worst)], "cpu").split(1)
        loss, stats = dpo.dpo_loss(pi_w, pi_l, ref_w, ref_l, beta)
        rows.append([name, pi_w.item(), ref_w.item(), pi_l.item(), ref_l.item(),
                     stats["margin"].item(), loss.item()])
    page.table(["", "log pi y_w", "SFT", "log pi y_l", "SFT", "margin", "loss"], rows)
    page.say("Before training, policy and reference are the same model, so the margin is 0, and "
             "-log sigmoid(0) is log 2 = 0.6931 for any pair. Only the difference is trained: both "
             "answers may become less likely.")


# --- 5 closed form, 6 GRPO ------------------------------------------------------------------------


def show_closed_form(page, sft, x, ids, scores):
    page.chapter("5 The closed form: what beta does")
    page.say("If these answers were all there are (so SFT's probabilities are made to sum to "
             "1), the best policy could be written down: a large beta keeps the reference, a "
             "small one favours high scores among answers that SFT gives at all; as beta goes to "
             "0, the highest score takes all.")
    page.equation("pi* = pi^SFT exp(r / beta) / Z",
                  "DPO eq. 4; experiments/closed_form.py closed_form, kl")
    betas = (2, 0.5, 0.1, 0.05)
    ref = dpo.logprob_all(sft, [(x, y) for y in ids], "cpu").log_softmax(dim=0)[None]
    policies = [ref] + [closed_form(ref, scores[None], beta) for beta in betas]
    columns = [policy[0].exp().tolist() for policy in policies]
    mean_scores = [(policy.exp() @ scores).item() for policy in policies]
    distances = [kl(policy, ref).item() for policy in policies]
    rows = [[NAMES[i], scores[i].item(), *[column[i] for column in columns]]
            for i in range(len(ids))]
    page.table(["", "r", "SFT", *[f"beta {beta}" for beta in betas]], rows,
               [["mean r", "", *mean_scores], ["KL", "", *distances]])


def show_group(page, config, sft, tokenizer):
    page.chapter("6 After 2022: one GRPO group")
    page.say("Where a program can check answers (strict: one true sentence with what is asked "
             "for), neither a reward model nor a value function is needed. The group's mean reward "
             "is the baseline; every token of answer i gets A_i.")
    page.equation("A_i = (r_i - mean) / (standard deviation + 0.0001)",
                  "GRPO (2402.03300) section 4.1.2; later/grpo.py group_advantages, "
                  "later/verifiers.py strict")
    for prompt in make_checkable(100, "valid", config.seed):
        answers = respond(sft, tokenizer, [prompt.text] * 4, 48)
        texts = [tokenizer.decode(ids) for ids in answers]
        verdicts = torch.tensor([float(strict(prompt, text, ids[-1] == tokenizer.eos))
                                 for text, ids in zip(texts, answers)])
        if 0 < verdicts.sum() < 4:
            break                        # in groups of equal verdicts all A are 0
    page.say(f"Prompt: {prompt.text}")
    advantages = group_advantages(verdicts[None], std=True)[0].tolist()
    page.table(["", "answer", "r", "A"], [[i, *row] for i, row in enumerate(
        zip(texts, verdicts.tolist(), advantages), 1)],
               [["", "mean", verdicts.mean().item(), ""],
                ["", "standard deviation", verdicts.std(correction=0).item(), ""]])


def read_held_out(config):
    """-> records of comparisons.jsonl"""
    with open(f"{config.out}/comparisons.jsonl", encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    return [record for record in records if record["split"] == "valid"]


def find_comparison(config):
    """A held-out ranking of short answers. -> its record, indices of four answers, best first"""
    found = []
    for record in read_held_out(config):
        order = [i for i in record["ranking"] if i < 4]      # the demonstration is 0
        if len(order) == 4 and max(map(len, record["ids"])) < 18:
            found.append((record, order))
    check(len(found) >= config.number, f"there are only {len(found)} short comparisons")
    return found[config.number - 1]


def main():
    config = read_flags(__doc__, Config)
    setup(config)
    sft, tokenizer = load_gpt(f"{config.out}/sft.pt")
    reward_model = load_reward(f"{config.out}/reward.pt", partner=(sft, tokenizer))
    record, order = find_comparison(config)
    x, ids = encode_prompt(tokenizer, record["prompt"]), [record["ids"][i] for i in order]
    scores = score_all(reward_model, [(x, y) for y in ids], "cpu")
    page = Page()
    page.say(f"Prompt: {record['prompt']}")
    with torch.no_grad():
        show_sft(page, sft, tokenizer, x, record["ids"][0])
    show_ranking(page, [tokenizer.decode(y) for y in ids], scores, record["labeler"])
    ppo_config, policy, batch, score, ref_logp, reward = make_batch(config, sft, tokenizer, x)
    tokens = spell(tokenizer, batch.tokens[0, 1:][batch.mask[0] > 0].tolist())
    show_rewards(page, ppo_config, tokens, batch, score, ref_logp, reward)
    show_advantages(page, ppo_config, tokens, batch, reward)
    show_update(page, ppo_config, tokens, policy, batch)
    show_dpo(page, config, sft, tokenizer, x, ids[0], ids[-1])
    show_closed_form(page, sft, x, ids, scores)
    show_group(page, config, sft, tokenizer)
    if config.html:
        page.write(config.html)


if __name__ == "__main__":
    main()
