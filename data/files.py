"""Where text comes from: the small world if a flag holds a number, the user's file if it names one.

    documents        plain text, documents apart by lines that hold <|endoftext|>
    demonstrations   {"prompt", "completion"}, or Alpaca's {"instruction", "input", "output"}
    prompts          {"prompt"}, or anything above or below: HH's is the dialogue so far
    rankings         {"prompt", "chosen", "rejected"}; HH's {"chosen", "rejected"}, two transcripts
                     of one dialogue; {"prompt", "responses", "ranking"}, best first

One record a line, or one JSON array. A wrong record ends the program with its file and line (in an
array: its number). A hash of the prompt's text says which split a record of one's own belongs to.
"""

import json

from data.world import text as world
from data.world.tasks import Prompt
from data.tokenizer import END
from tools.flags import check, fail


def number_or_file(text):
    """The type of a flag: 500 of the small world's, or the name of a file."""
    return int(text) if text.strip().isdecimal() and text.isascii() else text


def truth_is_known(source):
    """Whether answers to these prompts have a true utility: only in the small world."""
    return isinstance(source, int)


# --- what the stages ask for ----------------------------------------------------------------------


def read_documents(source, seed=0, which="train", n=None):
    """-> list of str. The small world's by number, or a file's: every twentieth is held out.
    n: another number than `source` of the small world's."""
    if truth_is_known(source):
        return world.make_documents(n or source, seed if which == "train" else which)
    found = [text.strip("\n") for text in read_text(source).split(END)]
    found = [text for text in found if text.strip()]
    check(len(found) >= 2, f"{source} holds {len(found)} documents; put lines that hold only {END} "
                           "between them")
    return [text for i, text in enumerate(found) if (i % 20 == 0) == (which != "train")]


def read_demonstrations(source, seed=0, which="train", n=None):
    """-> [(Prompt, answer)]. n: another number than `source` of the small world's."""
    if truth_is_known(source):
        return world.make_demonstrations(n or source, seed, which)
    found = [(make_own_prompt(get_prompt(r, place)), get_text(r, place, "completion", "output"))
             for place, r in read_records(source)]
    return check_some(source, [(p, answer) for p, answer in found if belongs(which, p.text)], which)


def read_prompts(source, which, seed=0):
    """-> [Prompt]. A file's have no known answers: their `want` is empty."""
    if truth_is_known(source):
        return world.make_prompts(source, which, seed)
    texts, parted = {}, []                                       # each text once, in their order
    for place, r in read_records(source):
        prompt = split_transcripts(r, place)[0] if are_transcripts(r) else get_prompt(r, place)
        if prompt:
            texts[prompt] = None
        else:
            parted.append(place)
    say_left_out(source, parted, "pairs of transcripts that share no dialogue", bool(texts))
    return check_some(source, [make_own_prompt(text) for text in texts if belongs(which, text)],
                      which)


def read_watched(source, seed=0, n=200):
    """-> n validation prompts whose answers are judged while a policy is trained, for the log
    alone; none where the truth is not known"""
    return world.make_prompts(n, "valid", seed) if truth_is_known(source) else []


def read_rankings(path):
    """Yields (place, prompt, responses, ranking, ids or None, "train" or "valid"), checked. Pairs
    that say nothing are left out and counted: of equal answers, and of HH those whose dialogues
    part before the last answer or that lack one."""
    equal, broken, some = [], [], False
    for place, r in read_records(path):
        if "responses" in r:
            prompt, responses, ranking = get_prompt(r, place), r["responses"], r.get("ranking")
            check(type(responses) is list and len(responses) >= 2,
                  f'{place}: "responses" is to be a list of two or more')
            for response in responses:
                check_text(response, place, "responses", empty=True)
            check(type(ranking) is list and all(type(i) is int for i in ranking)
                  and sorted(ranking) == list(range(len(responses))),
                  f'{place}: "ranking" must name each of the responses once, by number from 0')
        else:
            if are_transcripts(r):
                prompt, *responses = split_transcripts(r, place)
            else:
                prompt = get_prompt(r, place)
                responses = [get_text(r, place, key) for key in ("chosen", "rejected")]
            ranking = [0, 1]
            if not (prompt and all(responses)):
                broken.append(place)
                continue
            if responses[0] == responses[1]:
                equal.append(place)
                continue
        check(r.get("split") in (None, "train", "valid"), f'{place}: "split" is train or valid')
        which, some = r.get("split") or ("train" if belongs("train", prompt) else "valid"), True
        yield place, prompt, responses, ranking, r.get("ids"), which
    say_left_out(path, broken, "pairs of transcripts that part before the last answer or lack it",
                 some or equal)
    say_left_out(path, equal, "pairs of equal answers", some)


# --- files ----------------------------------------------------------------------------------------


def read_text(path):
    """UTF-8, with or without a byte-order mark; line ends become \\n."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            text = file.read()
    except UnicodeDecodeError as e:
        with open(path, "rb") as file:
            line = file.read(e.start).count(b"\n") + 1
        fail(f"{path}:{line}: not UTF-8 ({e.reason}); mend the line or convert the file")
    except OSError as e:
        fail(f"{path}: {e.strerror}; check the path")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_records(path):
    """Yields (place, dictionary) from one JSON object a line or from one array of them."""
    text = read_text(path)
    if text.lstrip().startswith("["):
        found = parse_json(text, path)
        check(type(found) is list, f"{path} is no JSON array")
        placed = [(f"{path}, record {i}", record) for i, record in enumerate(found, 1)]
    else:
        placed = ((f"{path}:{i}", parse_json(line, f"{path}:{i}"))
                  for i, line in enumerate(text.split("\n"), 1) if line.strip())
    for place, record in placed:
        check(type(record) is dict, f"{place}: not a JSON object with named fields")
        yield place, record


def parse_json(text, place):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        fail(f"{place}: {type(e).__name__}: {e}; mend or delete the line")


# --- fields ---------------------------------------------------------------------------------------


def check_text(value, place, key, empty=False):
    """Text that can be written as UTF-8, which lone surrogates can not."""
    check(type(value) is str, f'{place}: "{key}" is to be text, not {type(value).__name__}')
    check(empty or value.strip(), f'{place}: "{key}" is empty')
    check(not any("\ud800" <= c <= "\udfff" for c in value),
          f'{place}: "{key}" holds half of a surrogate pair, which is no character')
    return value


def get_text(record, place, *keys):
    key = next((key for key in keys if key in record), None)
    check(key, f"{place}: no " + " nor ".join(f'"{key}"' for key in keys) + " in the record")
    return check_text(record[key], place, key)


def get_prompt(record, place):
    prompt = get_text(record, place, "prompt", "instruction")
    more = "" if "prompt" in record else record.get("input", "")
    prompt += "\n" + check_text(more, place, "input") if more else ""
    return prompt.strip("\n")


def are_transcripts(record):
    return not {"prompt", "instruction", "responses"} & set(record) and "chosen" in record


def split_transcripts(record, place, turn="\n\nAssistant:"):
    """HH: both begin with the same dialogue. -> prompt, chosen, rejected; "", "", "" if they part
    before the last answer; an answer is "" where none was given"""
    chosen, rejected = (get_text(record, place, key) for key in ("chosen", "rejected"))
    check(turn in chosen or turn in rejected, f'{place}: without "prompt" two transcripts are '
          'expected, the same up to their last "Assistant:"')
    before, found, answer = chosen.rpartition(turn)
    prompt = before + found
    if not (found and rejected.startswith(prompt)):
        return "", "", ""
    return prompt.strip("\n"), answer.strip(), rejected[len(prompt):].strip()


def make_own_prompt(text):
    return Prompt(kind="own", text=text, good="", terse="", wrong="", want=(), words=0)


def belongs(which, text):
    """Of one's own records only 'train' is trained on; the rest serves 'valid' and 'eval' alike."""
    return (world.split(text) == "train") == (which == "train")


def say_left_out(source, places, what, some):
    """Counts them and names the first; ends the program if there is nothing else in the file."""
    if places:
        said = f"{source}: {len(places)} {what} left out; the first: {places[0]}"
        check(some, f"{said}; nothing is left, give it other records")
        print(said)


def check_some(source, found, which):
    check(found, f"{source} has no record that a hash of its prompt puts into the {which} split; "
                 "give it more records")
    return found
