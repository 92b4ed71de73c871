"""KTO (arXiv 2402.01306): single answers, good or bad, instead of comparisons.

    python -m later.preferences --loss kto                    halves of rankings
    python -m later.preferences --loss kto --feedback FILE    labels of your own; `read_feedback`
"""

from typing import NamedTuple

import torch

from data.batches import encode_prompt
from data.comparisons import encode_responses
from data.records import Unusable, parse_reply, read_usable
from later.measure import log_ratio_all


def kto_baseline(log_ratio):
    """z0 = max(0, mean of log pi/ref) over answers to OTHER prompts, an estimate of the KL. No
    gradient flows through it (KTO, arXiv 2402.01306, eq. 8).  (M,) -> ()"""
    return log_ratio.detach().mean().clamp(min=0)


def kto_loss(log_ratio, desirable, z0, beta, weight):
    """weight (1 - sigmoid(beta (log pi/ref - z0))) of desirable answers, 1 - sigmoid(-beta (log
    pi/ref - z0)) of others (arXiv 2402.01306, eq. 8).  (N,), (N,) of 0 and 1, () -> loss, stats"""
    assert log_ratio.shape == desirable.shape
    margin = (2 * desirable - 1) * beta * (log_ratio - z0)
    weights = torch.where(desirable > 0, weight, 1.0)
    loss = weights * torch.sigmoid(-margin)                      # 1 - sigmoid(x) = sigmoid(-x)
    margin = margin.detach()
    return loss.mean(), dict(accuracy=(margin > 0).float().mean(), margin=margin.mean(), z0=z0)


class Feedback(NamedTuple):
    prompt: list            # token ids
    responses: list         # lists of token ids
    desirable: list         # 1.0 or 0.0 per response


def split_halves(comparisons):
    """The better half of every ranking is desirable, the worse half undesirable. The middle of an
    odd number is left out: it wins and loses. -> [Feedback]"""
    feedback = []
    for prompt, responses in comparisons:
        half = len(responses) // 2
        feedback.append(Feedback(prompt, responses[:half] + responses[-half:],
                                 [1.0] * half + [0.0] * half))
    return feedback


def read_feedback(path, tokenizer, block_size):
    """A line: {"prompt": "...", "completion": "...", "label": true}, or false for a bad answer, and
    optionally "ids", the completion's token ids. -> [Feedback], one per prompt"""
    def parse(record):
        if not isinstance(record.get("label"), bool):
            raise Unusable('"label" must be true or false')
        text, completion = parse_reply(record, "completion")
        prompt = encode_prompt(tokenizer, text)
        [response] = encode_responses({"ids": [record.get("ids")]}, [completion], tokenizer)
        if len(prompt) + len(response) > block_size:
            raise Unusable(f"longer than the context of {block_size} tokens")
        return prompt, response, float(record["label"])

    feedback = {}
    for prompt, response, label in read_usable(path, parse):
        answers = feedback.setdefault(tuple(prompt), Feedback(prompt, [], []))
        answers.responses.append(response)
        answers.desirable.append(label)
    return list(feedback.values())


def balance(feedback):
    """-> the weight of a desirable answer with which both labels have the same total weight"""
    desirable = sum(sum(answers.desirable) for answers in feedback)
    n = sum(len(answers.desirable) for answers in feedback)
    return max(1, n - desirable) / max(1, desirable)


def mismatch(batch, block_size):
    """Every prompt with the responses to the next prompt, where they fit. A batch of one prompt has
    none. -> [(prompt ids, response ids)]"""
    examples = []
    for i, answers in enumerate(batch):
        others = batch[(i + 1) % len(batch)]
        for response in others.responses:
            if len(batch) > 1 and len(answers.prompt) + len(response) <= block_size:
                examples.append((answers.prompt, response))
    return examples


def kto_batch_loss(config, model, ref, batch, pi, pi_ref, weight):
    """batch: Feedback; pi, pi_ref: log-probs of its responses (B, K) -> loss, stats"""
    examples, z0 = mismatch(batch, model.config.block_size), torch.tensor(0.0, device=pi.device)
    if examples:
        z0 = kto_baseline(log_ratio_all(model, ref, examples, pi.device))
    desirable = torch.tensor([answers.desirable for answers in batch], device=pi.device)
    return kto_loss(pi - pi_ref, desirable, z0, config.beta, weight)
