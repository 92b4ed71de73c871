"""Random inputs for every function, case by case, and what a function does with them: its values,
its gradients, whether it changes its arguments. A student who forgets the padding keeps the points
of the cases without padding and learns which case failed.
"""

import ast
from importlib import import_module

import torch
from torch import nn

from model import GPT, GPTConfig
from ppo import Config
from reward import RewardModel

WHOLE, PADDED = False, True


# --- inputs ---------------------------------------------------------------------------------------


def normal(*shape, scale=1.0):
    return scale * torch.randn(shape)


def draw_mask(B, T, padded, first=0):
    """Each row has one run of ones, which starts at column `first` or later.  -> (B, T)"""
    if not padded:
        return torch.ones(B, T)
    start = torch.randint(first, T - 2, (B,))
    length = 1 + (torch.rand(B) * (T - start - 1)).long()
    start[0], length[0] = first, T - first              # one row fills the batch
    start[1], length[1] = first, 2                      # and one is short
    column = torch.arange(T)
    return ((column >= start[:, None]) & (column < (start + length)[:, None])).float()


def outside(x, mask, value):
    """x with a value outside the mask that must have no effect."""
    return x.masked_fill(mask == 0, value)


def draw_rows(padded, values_outside, *constants):
    """-> random (B, T), one per value outside the mask, the mask, the constants"""
    mask = draw_mask(5, 8, padded)
    rows = [outside(normal(5, 8), mask, value) for value in values_outside]
    return *rows, mask, *constants


def draw_texts(padded):
    return normal(5, 9, 7, scale=2), torch.randint(7, (5, 9)), draw_mask(5, 9, padded, first=1)


def draw_logits(scale=2.0, dtype=torch.float32, V=11):
    return normal(4, 6, V, scale=scale).to(dtype), torch.randint(V, (4, 6))


def draw_pairs(scale):
    winners, losers = normal(7, scale=scale), normal(7, scale=scale)
    winners[0] -= 4 * (scale - 1)                       # one pair is far on the wrong side
    return winners, losers


def draw_rankings(K):
    return (normal(3, K),)


def draw_rewards(padded, beta):
    return normal(5), *draw_rows(padded, [9.0, -4.0], beta)


def draw_policy(padded, spread):
    """Outside the mask the ratio overflows: e^120 is infinite in float32."""
    old_logp, adv, mask = draw_rows(padded, [0.0, 6.0])
    return outside(old_logp + normal(5, 8, scale=spread), mask, 120.0), old_logp, adv, mask, 0.2


def draw_episodes(beta, missing_eos_score, lam):
    """Random tiny networks, and prompts of one to five tokens. Token 5 is eos."""
    gpt_config = GPTConfig(vocab_size=6, block_size=16, n_layer=1, n_head=2, n_embd=8)
    policy, ref = GPT(gpt_config).eval(), GPT(gpt_config).eval()
    reward_model, value_fn = RewardModel(GPT(gpt_config)), RewardModel(GPT(gpt_config))
    for gpt in (policy, ref):
        gpt.transformer.wte.weight.data *= 6            # less uniform
    for scalar_model in (reward_model, value_fn):
        nn.init.normal_(scalar_model.head.weight)

    prompts = [torch.randint(6, (1 + i % 5,)).tolist() for i in range(24)]
    prompts[0], prompts[1] = [5, 2], [1, 5, 3]          # eos in a prompt does not end the response
    config = Config(max_new_tokens=6, beta=beta, missing_eos_score=missing_eos_score, lam=lam)
    return config, policy, ref, value_fn, reward_model.score_responses, prompts, 5


def draw_sequences(padded):
    """The model is a table of logits that depend on the last token only."""
    _, tokens, mask = draw_texts(padded)
    return nn.Embedding(7, 7), tokens, mask


def draw_dpo(scale, equal=False):
    pi_w, pi_l, ref_w, ref_l = (-20 + normal(4, 6, scale=scale)).unbind()
    pi_w[0] -= 4 * (scale - 2)                          # one pair is far on the wrong side
    if equal:
        return pi_w, pi_l, pi_w.clone(), pi_l.clone(), 0.4
    return pi_w, pi_l, ref_w, ref_l, 0.4


def draw_groups(std, equal=False):
    scores = normal(4, 6, scale=3)
    if equal:
        scores[1] = scores[1, 0]
    return scores, std


def draw_grpo(padded, spread, beta):
    logp, old_logp, _, mask, clip = draw_policy(padded, spread)
    ref_logp = outside(old_logp + normal(5, 8, scale=0.3), mask, -120.0)
    return logp, old_logp, ref_logp, normal(5), mask, clip, beta


def draw_dr_grpo(padded, spread):
    return *draw_policy(padded, spread), 12


def draw_verdict(what):
    """A prompt with one correct answer, an answer to it, whether it ended."""
    from later.verifiers import make_checkable              # part 1 is graded without later/
    seed = torch.randint(10 ** 6, ()).item()
    prompts = make_checkable(200, "train", seed)
    prompt = next(p for p in prompts if " eat " in p.careful)
    other = next(p for p in prompts if p.careful != prompt.careful)
    answers = {"correct": prompt.careful, "wrong fact": prompt.wrong,
               "denied fact": prompt.careful.replace(" eat ", " do not eat "),
               "another prompt's": other.careful, "unfinished": prompt.careful,
               "two sentences": f"{prompt.careful} {prompt.careful}",
               "only the words": " ".join(options[0] for _, options in prompt.required) + " and.",
               "more than required": f"{prompt.careful} {other.careful}"}
    return prompt, answers[what], what != "unfinished"


def draw_simpo(scale):
    n_w, n_l = torch.randint(2, 12, (2, 6)).float().unbind()
    return normal(6, scale=scale) * n_w, normal(6, scale=scale) * n_l, n_w, n_l, 2.3, 0.8


def draw_steps(padded, scale):
    logits, mask = draw_rows(padded, [30.0 / scale])
    return scale * logits, (torch.rand(5, 8) < 0.4).float(), mask


CASES = {                      # {function: {case: (draw, *its arguments)}}
    "token_logprobs": {"random logits": (draw_logits,), "rare tokens": (draw_logits, 80.0),
                       "half precision": (draw_logits, 2.0, torch.bfloat16, 400)},
    "masked_mean": {"whole rows": (draw_rows, WHOLE, [37.0]),
                    "padding": (draw_rows, PADDED, [37.0])},
    "lm_loss": {"whole rows": (draw_texts, WHOLE), "prompts and padding": (draw_texts, PADDED)},
    "score": {"whole rows": (draw_rows, WHOLE, [9.0]),
              "prompts and padding": (draw_rows, PADDED, [9.0])},
    "preference_loss": {"close scores": (draw_pairs, 1.0), "distant scores": (draw_pairs, 300.0)},
    "ranking_loss": {"two answers": (draw_rankings, 2), "many answers": (draw_rankings, 6)},
    "shaped_rewards": {"score only": (draw_rewards, PADDED, 0.0),
                       "whole rows": (draw_rewards, WHOLE, 0.5),
                       "padding": (draw_rewards, PADDED, 0.5)},
    "gae": {"sums of rewards": (draw_rows, WHOLE, [0.0, 50.0], 1.0, 1.0),
            "whole rows": (draw_rows, WHOLE, [0.0, 50.0], 0.9, 0.8),
            "padding": (draw_rows, PADDED, [0.0, 50.0], 0.9, 0.8),
            "one step": (draw_rows, PADDED, [0.0, 50.0], 1.0, 0.0)},
    "whiten": {"whole rows": (draw_rows, WHOLE, [37.0]), "padding": (draw_rows, PADDED, [37.0])},
    "policy_loss": {"ratio near 1": (draw_policy, WHOLE, 0.05),
                    "clipped": (draw_policy, WHOLE, 0.6), "padding": (draw_policy, PADDED, 0.6)},
    "value_loss": {"not clipped": (draw_rows, WHOLE, [7.0, -3.0, 40.0], 100.0),
                   "clipped": (draw_rows, WHOLE, [7.0, -3.0, 40.0], 0.2),
                   "padding": (draw_rows, PADDED, [7.0, -3.0, 40.0], 0.2)},
    "rollout": {"episodes": (draw_episodes, 0.5, -3.0, 0.95),
                "answers that never end": (draw_episodes, 0.0, -7.0, 0.95),
                "another lambda": (draw_episodes, 0.2, -3.0, 0.5)},
    "sequence_logprob": {"whole rows": (draw_sequences, WHOLE),
                         "prompts and padding": (draw_sequences, PADDED)},
    "dpo_loss": {"small margins": (draw_dpo, 2.0), "large margins": (draw_dpo, 3000.0),
                 "policy equals reference": (draw_dpo, 2.0, True)},
    "group_advantages": {"minus the mean": (draw_groups, False),
                         "over the deviation": (draw_groups, True),
                         "equal answers": (draw_groups, True, True)},
    "grpo_loss": {"no KL penalty": (draw_grpo, WHOLE, 0.05, 0.0),
                  "clipped": (draw_grpo, WHOLE, 0.6, 0.3),
                  "padding": (draw_grpo, PADDED, 0.6, 0.3)},
    "dr_grpo_loss": {"ratio near 1": (draw_dr_grpo, WHOLE, 0.05),
                     "clipped": (draw_dr_grpo, WHOLE, 0.6), "padding": (draw_dr_grpo, PADDED, 0.6)},
    "strict": {what: (draw_verdict, what) for what in
               ("correct", "wrong fact", "denied fact", "another prompt's", "unfinished",
                "two sentences", "only the words", "more than required")},
    "simpo_loss": {"small margins": (draw_simpo, 1.0), "large margins": (draw_simpo, 200.0)},
    "process_loss": {"whole rows": (draw_steps, WHOLE, 1.0), "padding": (draw_steps, PADDED, 1.0),
                     "confident and wrong": (draw_steps, WHOLE, 200.0)},
    "unbiased": {"two orders": (draw_pairs, 1.0)}}

# arguments with respect to which results are differentiated; other functions need no gradients
DIFFERENTIATED = dict(
    token_logprobs=[0], masked_mean=[0], lm_loss=[0], score=[0], preference_loss=[0, 1],
    ranking_loss=[0], policy_loss=[0], value_loss=[0], sequence_logprob=[0], dpo_loss=[0, 1],
    grpo_loss=[0], dr_grpo_loss=[0], simpo_loss=[0, 1], process_loss=[0])


# --- what a function does with them ---------------------------------------------------------------


def load_function(hole, source):
    """The function as in `source`, with all of `source` except functions and classes that the
    solved module has too; of these it uses the solved ones."""
    module = hole.file.removesuffix(".py").replace("/", ".")
    names = dict(vars(import_module(module)))
    del names[hole.name]
    own = []
    for node in ast.parse(source).body:
        if getattr(node, "name", None) not in names:     # only functions and classes have a name
            own.append(node)
    exec(compile(ast.Module(own, []), hole.file, "exec"), names)
    if hole.name not in names:
        raise NameError(f"{hole.file} has no function {hole.name}")
    return names[hole.name]


def name_results(result):
    """Whatever a function returns -> {name: tensor}"""
    named = {}
    if isinstance(result, tuple) and hasattr(result[0], "returns"):              # of `rollout`
        episodes, stats = result
        for name, x in episodes._asdict().items():
            named[name] = x if name == "tokens" else x * episodes.mask
        return named | stats
    for i, value in enumerate(result if isinstance(result, tuple) else [result]):
        named |= value if isinstance(value, dict) else {f"value {i}": value}
    return named


def evaluate(function, name, case, seed):
    """-> {what: tensor}, or the error that the function raised"""
    torch.manual_seed(seed)
    draw, *settings = CASES[name][case]
    arguments = draw(*settings)
    copies = [x.clone() if torch.is_tensor(x) else None for x in arguments]
    inputs = []
    for i in DIFFERENTIATED.get(name, []):
        x = arguments[i]
        inputs.append(x.weight if isinstance(x, nn.Module) else x.requires_grad_())
    try:
        with torch.set_grad_enabled(len(inputs) > 0):
            results = name_results(function(*arguments))
        outputs = {key: torch.as_tensor(x).detach().float() for key, x in results.items()}
        if inputs:
            outputs |= differentiate(results, inputs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    for i, copy in enumerate(copies):
        if copy is not None:
            unchanged = torch.equal(copy, arguments[i].detach())
            outputs[f"argument {i} is unchanged"] = torch.tensor(float(unchanged))
    return outputs


def differentiate(results, inputs):
    """-> which results have a graph, and the gradients of the first one"""
    outputs = {}
    for key, x in results.items():
        outputs[f"{key} requires a gradient"] = torch.tensor(float(x.requires_grad))
    gradients = [None] * len(inputs)
    if results["value 0"].requires_grad:
        gradients = torch.autograd.grad(results["value 0"].sum(), inputs, allow_unused=True)
    for i, gradient in enumerate(gradients):
        outputs[f"gradient {i}"] = torch.zeros(()) if gradient is None else gradient.float()
    return outputs


def evaluate_all(hole, source, seed):
    """-> {case: outputs}"""
    function = load_function(hole, source)
    return {case: evaluate(function, hole.name, case, seed) for case in CASES[hole.name]}


def find_difference(expected, actual):
    """-> the first difference in words, "" if there is none"""
    if not isinstance(expected, dict) or not isinstance(actual, dict):
        return "" if expected == actual else str(actual)
    for key, x in expected.items():
        y = actual.get(key)
        if not torch.is_tensor(y):
            return f"{key} is missing"
        if x.shape != y.shape:
            return f"{key} has shape {tuple(y.shape)}, not {tuple(x.shape)}"
        if not torch.allclose(x, y, rtol=1e-3, atol=1e-4, equal_nan=True):
            i = (x - y).abs().nan_to_num(torch.inf).argmax()
            return f"{key} is {y.flatten()[i]:.4g}, not {x.flatten()[i]:.4g}"
    return ""
