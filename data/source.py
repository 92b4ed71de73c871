"""Where text comes from: the small world if a flag holds a number, the user's file if it names one.

    documents        plain text, documents apart by lines that hold <|endoftext|>
    demonstrations   {"prompt", "completion"}, or Alpaca's {"instruction", "input", "output"}
    prompts          {"prompt"}, or anything above or below that has one
    rankings         {"prompt", "chosen", "rejected"}; HH's {"chosen", "rejected"}, two transcripts;
                     {"prompt", "responses", "ranking"}, best first

One record a line, or one JSON array. A wrong record ends the program with its file and line (in an
array: its number). A hash of the prompt's text says which split a record of one's own belongs to.
"""

import json

from data import world
from data.tasks import Prompt
from data.tokenizer import END
from plumbing import check, fail


def number_or_file(text):
    """The type of a flag: 500 of the small world's, or the name of a file."""
    return int(text) if text.strip().isdecimal() and text.isascii() else text


# --- what the stages ask for ----------------------------------------------------------------------


def documents(source, seed=0, which="train", n=None):
    """-> list of str. The small world's by number, or a file's: every twentieth is held out.
    n: another number than `source` of the small world's."""
    if isinstance(source, int):
        return world.documents(n or source, seed if which == "train" else which)
    found = [text.strip("\n") for text in read_text(source).split(END)]
    found = [text for text in found if text.strip()]
    check(len(found) >= 2, f"{source} holds {len(found)} documents; put lines that hold only {END} "
                           "between them")
    return [text for i, text in enumerate(found) if (i % 20 == 0) == (which != "train")]


def demonstrations(source, seed=0, which="train", n=None):
    """-> [(Prompt, answer)]. n: another number than `source` of the small world's."""
    if isinstance(source, int):
        return world.demonstrations(n or source, seed, which)
    found = [(own_prompt(prompt_of(r, place)), text_of(r, place, "completion", "output"))
             for place, r in records(source)]
    return some(source, [(p, answer) for p, answer in found if is_in(which, p.text)], which)


def prompts(source, which, seed=0):
    """-> [Prompt]. A file's have no known answers: their `want` is empty."""
    if isinstance(source, int):
        return world.prompts(source, which, seed)
    texts = dict.fromkeys(prompt_of(r, place) for place, r in records(source))
    return some(source, [own_prompt(text) for text in texts if is_in(which, text)], which)


def rankings(path):
    """Yields (place, prompt, responses, ranking, ids or None, "train" or "valid"), checked. Pairs
    of equal answers say nothing; they are left out and counted."""
    equal = []
    for place, r in records(path):
        if "responses" in r:
            prompt, responses, ranking = prompt_of(r, place), r["responses"], r.get("ranking")
            check(type(responses) is list and len(responses) >= 2,
                  f'{place}: "responses" is to be a list of two or more')
            for response in responses:
                good_text(response, place, "responses", empty=True)
            check(type(ranking) is list and all(type(i) is int for i in ranking)
                  and sorted(ranking) == list(range(len(responses))),
                  f'{place}: "ranking" must name each of the responses once, by number from 0')
        else:
            chosen, rejected = (text_of(r, place, key) for key in ("chosen", "rejected"))
            if not {"prompt", "instruction"} & set(r):
                prompt, chosen, rejected = transcripts(chosen, rejected, place)
            else:
                prompt = prompt_of(r, place)
            responses, ranking = [chosen, rejected], [0, 1]
            if chosen == rejected:
                equal.append(place)
                continue
        check(r.get("split") in (None, "train", "valid"), f'{place}: "split" is train or valid')
        which = r.get("split") or ("train" if is_in("train", prompt) else "valid")
        yield place, prompt, responses, ranking, r.get("ids"), which
    if equal:
        print(f"{path}: {len(equal)} pairs of equal answers left out; the first: {equal[0]}")


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


def records(path):
    """Yields (place, dictionary) from one JSON object a line or from one array of them."""
    text = read_text(path)
    if text.lstrip().startswith("["):
        found = loads(text, path)
        check(type(found) is list, f"{path} is no JSON array")
        placed = [(f"{path}, record {i}", record) for i, record in enumerate(found, 1)]
    else:
        placed = ((f"{path}:{i}", loads(line, f"{path}:{i}"))
                  for i, line in enumerate(text.split("\n"), 1) if line.strip())
    for place, record in placed:
        check(type(record) is dict, f"{place}: not a JSON object with named fields")
        yield place, record


def loads(text, place):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        fail(f"{place}: {type(e).__name__}: {e}; mend or delete the line")


# --- fields ---------------------------------------------------------------------------------------


def good_text(value, place, key, empty=False):
    """Text that can be written as UTF-8, which lone surrogates can not."""
    check(type(value) is str, f'{place}: "{key}" is to be text, not {type(value).__name__}')
    check(empty or value.strip(), f'{place}: "{key}" is empty')
    check(not any("\ud800" <= c <= "\udfff" for c in value),
          f'{place}: "{key}" holds half of a surrogate pair, which is no character')
    return value


def text_of(record, place, *keys):
    key = next((key for key in keys if key in record), None)
    check(key, f"{place}: no " + " nor ".join(f'"{key}"' for key in keys) + " in the record")
    return good_text(record[key], place, key)


def prompt_of(record, place):
    prompt = text_of(record, place, "prompt", "instruction")
    more = "" if "prompt" in record else record.get("input", "")
    prompt += "\n" + good_text(more, place, "input") if more else ""
    return prompt.strip("\n")


def transcripts(chosen, rejected, place, turn="\n\nAssistant:"):
    """HH: both begin with the same dialogue. -> prompt, chosen, rejected"""
    prompt, found, answer = chosen.rpartition(turn)
    prompt += found
    other = rejected[len(prompt):].strip() if rejected.startswith(prompt) else ""
    check(found and answer.strip() and other, f'{place}: without "prompt" two transcripts are '
          'expected that differ only after the last "Assistant:"')
    return prompt.strip("\n"), answer.strip(), other


def own_prompt(text):
    return Prompt(kind="own", text=text, good="", terse="", wrong="", want=(), words=0)


def is_in(which, text):
    """Of one's own records only 'train' is trained on; the rest serves 'valid' and 'eval' alike."""
    return (world.split(text) == "train") == (which == "train")


def some(source, found, which):
    check(found, f"{source} has no record that a hash of its prompt puts into the {which} split; "
                 "give it more records")
    return found
