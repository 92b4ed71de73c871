"""Measurements for eval.py: of a model's answers, and of reward models."""

import random
from collections import Counter

from data.batches import encode_example, encode_prompt
from data.comparisons import encode_responses, pair_accuracy, rank_agreement
from data.files import OwnPrompt
from data.records import parse_comparison, read_usable
from data.world.labelers import make_labelers
from data.world.tasks import opinion, unknown_question, why_question
from data.world.text import make_probes
from data.world.utility import breakdown, has_no_error, has_no_error_of_content, is_correct

# --- answers --------------------------------------------------------------------------------------


def make_probe_prompts(n, seed):
    """Up to n prompts each about an unknown thing, with a why, and with an opinion."""
    prompts = []
    for task in (unknown_question, why_question, opinion):
        prompts += make_probes(task, n, seed)
    return prompts


def measure_answer(prompt, answer, ended):
    """What the true utility says of an answer. -> a dictionary, empty for a prompt of your own"""
    if isinstance(prompt, OwnPrompt):
        return {}
    terms = breakdown(prompt, answer, ended)
    nonzero_terms = {term: round(value, 3) for term, value in terms.items() if value}
    judged = dict(kind=prompt.kind, terms=nonzero_terms, utility=sum(terms.values()),
                  correct=has_no_error(prompt, answer, terms),
                  content=has_no_error_of_content(terms),
                  exact=answer == prompt.careful, rude=terms["rude"] < 0,
                  refuses=terms["refuses"] < 0)
    if prompt.false_premise:
        judged["affirms_false"] = terms["affirms"] < 0
    if prompt.denial:
        judged["denies_true"] = terms["denies"] < 0
    if prompt.unknown and terms["form"] == 0:    # nonsense would lower the fraction
        judged["invents"] = terms["invents"] < 0
    return judged


def compare_with_sft(prompts, records, sft_records, seed):
    """Wins against SFT's answers, by the true utility and by one held-out labeler per prompt, who
    sees both answers. stock_answer: whether an answer is the model's most frequent one and not
    correct for this prompt. -> new records"""
    rng, labelers = random.Random(f"judge {seed}"), make_labelers("held-out")
    frequent, compared = find_most_frequent(records), []
    for prompt, record, sft in zip(prompts, records, sft_records):
        labeler = rng.choice(labelers)
        pair = [(record["answer"], record["ended"]), (sft["answer"], sft["ended"])]
        if pair[0] == pair[1]:
            win_labelers = 0.5               # a tie; the labeler's noise would decide at random
        else:
            win_labelers = float(labeler.rank(prompt, pair, rng)[0] == 0)
        compared.append(dict(record, win_utility=win(record["utility"], sft["utility"]),
                             win_labelers=win_labelers,
                             stock_answer=record["answer"] == frequent and not record["correct"]))
    return compared


def win(a, b):
    """Of the value a against the value b: 1, a tie 1/2, a loss 0."""
    if a == b:
        return 0.5
    return float(a > b)


def find_most_frequent(records):
    return Counter(record["answer"] for record in records).most_common(1)[0][0]


# --- reward models: score_fn([(prompt ids, response ids)]) -> scores (N,) -------------------------


def measure_accuracy(score_fn, tokenizer, path):
    """On the held-out comparisons of a file: the share of pairs that the scores order as the true
    utility does, and the share on which two held-out labelers agree."""
    def parse(record):
        prompt, responses, _ = parse_comparison(record)
        return prompt, encode_responses(record, responses, tokenizer), record

    scores, utilities, rankings = [], [], []
    if not path.is_file():
        return {}
    for text, responses, record in read_usable(path, parse):
        if "utilities" in record:
            prompt = encode_prompt(tokenizer, text)
            scores.append(score_fn([(prompt, ids) for ids in responses]).tolist())
            utilities.append(record["utilities"])
            rankings.append(record["heldout_rankings"])
    if not scores:
        return {}
    return dict(accuracy_utility=pair_accuracy(scores, utilities),
                agreement_heldout=rank_agreement(rankings))


def measure_discrimination(score_fn, tokenizer, prompts, records, seed):
    """How often the careful answer scores above a worse one; a tie counts 1/2. `records` holds a
    policy's answers. -> {probe: share}"""
    shares = {}
    for probe, pairs in make_pairs(prompts, find_most_frequent(records), seed).items():
        careful, worse = [], []
        for prompt, answer in pairs:
            careful.append(encode_example(tokenizer, prompt.text, prompt.careful))
            worse.append(encode_example(tokenizer, prompt.text, answer))
        if pairs:
            wins = [win(a, b) for a, b in zip(score_fn(careful), score_fn(worse))]
            shares[probe] = sum(wins) / len(wins)
    return shares


def make_pairs(prompts, frequent, seed):
    """What the careful answer to a prompt should score above; an answer that is correct for this
    prompt, too, is left out:

    reads_wrong        the same answer with a wrong fact
    reads_same_kind    the careful answer to another prompt of the same kind
    reads_other        the careful answer to a prompt of another kind
    reads_frequent     a policy's most frequent answer
    reads_terse        the terse answer

    -> {probe: [(prompt, answer)]}
    """
    rng = random.Random(f"probes {seed}")
    pairs = dict(reads_wrong=[], reads_same_kind=[], reads_other=[], reads_frequent=[],
                 reads_terse=[])
    for prompt in prompts:
        answers = dict(reads_wrong=prompt.wrong,
                       reads_same_kind=find_foreign_answer(rng, prompts, prompt, True),
                       reads_other=find_foreign_answer(rng, prompts, prompt, False),
                       reads_frequent=frequent, reads_terse=prompt.terse)
        for probe, answer in answers.items():
            if answer is not None and not is_correct(prompt, answer):
                pairs[probe].append((prompt, answer))
    return pairs


def find_foreign_answer(rng, prompts, prompt, same_kind):
    """The careful answer to a random other prompt that is not correct for this one, or None."""
    for other in rng.sample(prompts, len(prompts)):
        if (other.kind == prompt.kind) == same_kind and not is_correct(prompt, other.careful):
            return other.careful
    return None
