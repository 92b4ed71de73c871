"""Records of your own, from JSON lines or one JSON array, in the formats in which they are common.

    demonstration    {"prompt", "completion"}; Alpaca: {"instruction", "input", "output"};
                     Dolly: {"instruction", "context", "response"}; {"messages"}
    comparison       {"prompt", "chosen", "rejected"}, as texts or as lists of messages;
                     {"prompt", "responses", "ranking"}; HH: {"chosen", "rejected"}
    prompt           {"prompt"}, or any of the above

A message is {"role", "content"}. A record that cannot be used is left out and counted.
"""

import functools
import json

from tools.flags import check, fail

FORMATS = ('it must hold JSON lines or one JSON array of {"prompt", "completion"}, Alpaca, Dolly, '
           '{"messages"}, {"prompt", "chosen", "rejected"}, HH, or {"prompt", "responses", '
           '"ranking"} (docs/using.md)')
FIELDS = {"prompt", "completion", "instruction", "input", "output", "context", "response",
          "messages", "chosen", "rejected", "responses", "ranking", "label"}
OF_COMPARE = {"ids", "labeler", "split", "second_ranking", "heldout_rankings", "utilities"}
SPEAKERS = {"user": "Human", "assistant": "Assistant", "system": "System"}          # as in HH


class Unusable(Exception):
    """Why a record is left out."""


class WrongFile(Exception):
    """What a record shows of the whole file."""


def read_text(path, expected="plain text"):
    try:
        with open(path, encoding="utf-8-sig") as file:       # without a byte-order mark
            return file.read()
    except UnicodeDecodeError:
        fail(f"{path} is not a UTF-8 text file; {expected}")
    except OSError as error:
        fail(f"{path}: {error.strerror}")


def read_usable(path, parse):
    """-> [parse(record)], without the records for which parse raises Unusable"""
    usable, left_out, unread = [], [], set()
    for place, record in split_records(path):
        try:
            record = parse_json(record) if isinstance(record, str) else record
            if not isinstance(record, dict):
                raise Unusable("not a JSON object with named fields")
            record = {key: value for key, value in record.items() if value is not None}
            usable.append(parse(record))
            unread |= record.keys() - FIELDS - OF_COMPARE
        except Unusable as error:
            left_out.append(f"{place}: {error}")
        except WrongFile as error:
            fail(f"{place}: {error}")
    n_records = len(usable) + len(left_out)
    first = left_out[0] if left_out else "the file is empty"
    check(usable, f"{path}: none of {n_records} records can be used ({first}); {FORMATS}")
    if left_out:
        print_once(f"{path}: {len(left_out)} of {n_records} records are left out; the first is "
                   f"{first}")
    if unread:
        print_once(f"{path}: fields that are not read: {', '.join(sorted(unread))}")
    return usable


@functools.cache
def print_once(message):
    """A file may be read once for training and once for measuring."""
    print(message)


def split_records(path):
    """-> [(place, record, or a line that holds it)]; place names file and line, for messages"""
    text = read_text(path, FORMATS)
    if text.lstrip().startswith("["):
        try:
            array = parse_json(text)
        except Unusable as error:
            fail(f"{path}: {error}; {FORMATS}")
        return [(f"{path}, record {number}", record) for number, record in enumerate(array, 1)]
    lines = enumerate(text.split("\n"), 1)
    return [(f"{path}:{number}", line) for number, line in lines if line.strip()]


def parse_json(text):
    try:
        value = json.loads(text)
        if "\\ud" in text.lower():                           # perhaps halves of surrogate pairs
            text = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode("utf-8")
            value = json.loads(text)
        return value
    except (ValueError, RecursionError) as error:
        raise Unusable(f"not JSON ({error})")


# --- fields ---------------------------------------------------------------------------------------


def get_text(record, key):
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise Unusable(f'"{key}" is missing, empty or not text')
    return value


def get_messages(record, key):
    """-> [(role, text)]"""
    dialogue = []
    for message in record[key]:
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("system", "user", "assistant"):
            raise Unusable(f'"{key}" must hold messages of system, user and assistant')
        if role != "system" or message.get("content"):       # an empty system message is common
            dialogue.append((role, get_text(message, "content")))
    return dialogue


def write_prompt(dialogue):
    """A single message is the prompt itself; a longer dialogue becomes a transcript, as in HH."""
    if not dialogue or dialogue[-1][0] != "user":
        raise Unusable("there is no message of the user to answer")
    if len(dialogue) == 1:
        return dialogue[0][1].strip("\n")
    turns = [f"{SPEAKERS[role]}: {text}" for role, text in dialogue]
    return "\n\n".join(turns + ["Assistant:"])


# --- formats --------------------------------------------------------------------------------------


def parse_prompt(record):
    """-> the prompt of a record of any format"""
    if isinstance(record.get("messages"), list):
        dialogue = get_messages(record, "messages")
        if dialogue and dialogue[-1][0] == "assistant":
            dialogue.pop()
        return write_prompt(dialogue)
    if isinstance(record.get("chosen"), list):
        return parse_reply(record, "chosen")[0]
    if isinstance(record.get("prompt"), list):
        return write_prompt(get_messages(record, "prompt"))
    key = "prompt" if "prompt" in record else "instruction"
    if key not in record and "chosen" in record:
        return parse_transcripts(record)[0]
    prompt = get_text(record, key)
    for key in ("input", "context"):                         # of Alpaca and Dolly, often empty
        value = record.get(key, "")
        if not isinstance(value, str):
            raise Unusable(f'"{key}" is not text')
        if value.strip():
            prompt += "\n" + value
    return prompt.strip("\n")


def parse_reply(record, key):
    """record[key] is a response, or messages that end in one. -> prompt, response"""
    if not isinstance(record.get(key), list):
        return parse_prompt(record), get_text(record, key)
    dialogue, before = get_messages(record, key), []
    if isinstance(record.get("prompt"), list):
        before = get_messages(record, "prompt")
    elif "prompt" in record:
        before = [("user", get_text(record, "prompt"))]
    if not all(message in dialogue for message in before):
        n_repeated = len(before)                             # messages of the prompt, if any
        while before[len(before) - n_repeated:] != dialogue[:n_repeated]:
            n_repeated -= 1
        dialogue = before + dialogue[n_repeated:]
    if not dialogue or dialogue[-1][0] != "assistant":
        raise Unusable(f'"{key}" does not end in a message of the assistant')
    return write_prompt(dialogue[:-1]), dialogue[-1][1]


def parse_demonstration(record):
    """-> prompt, response"""
    for key in ("completion", "output", "response", "messages"):
        if key in record:
            return parse_reply(record, key)
    raise Unusable("no completion, output, response or messages")


def parse_comparison(record):
    """-> prompt, responses, ranking (indices of the responses, best first)"""
    if "responses" in record:
        return parse_ranking(record)
    has_prompt = "prompt" in record or "instruction" in record
    if not has_prompt and not isinstance(record.get("chosen"), list):
        prompt, chosen, rejected = parse_transcripts(record)
    else:
        prompt, chosen = parse_reply(record, "chosen")
        prompt_of_rejected, rejected = parse_reply(record, "rejected")
        if prompt != prompt_of_rejected:
            raise Unusable("chosen and rejected answer different prompts")
    return prompt, [chosen, rejected], [0, 1]


def parse_ranking(record):
    responses, ranking = record["responses"], record.get("ranking")
    if not isinstance(responses, list) or len(responses) < 2:
        raise Unusable('"responses" must be a list of two or more texts')
    if not all(isinstance(response, str) for response in responses):
        raise Unusable('"responses" must be a list of two or more texts')
    if "ids" not in record and not all(response.strip() for response in responses):
        raise Unusable("a response is empty")                # a sampled one may be
    if not isinstance(ranking, list) or not all(type(i) is int for i in ranking) \
            or sorted(ranking) != list(range(len(responses))):
        raise Unusable('"ranking" must name every response once, by its number from 0')
    return parse_prompt(record), responses, ranking


def parse_transcripts(record):
    """HH: both are whole dialogues. The prompt is everything up to the last "Assistant:"."""
    turn = "\n\nAssistant:"
    chosen, rejected = get_text(record, "chosen"), get_text(record, "rejected")
    before, _, answer = chosen.rpartition(turn)
    prompt = before + turn
    rest = answer + rejected[len(prompt):]
    if not before or not rejected.startswith(prompt) or "\n\nHuman:" in rest or turn in rest:
        raise Unusable('without "prompt", chosen and rejected must be two transcripts that are the '
                       'same up to the last "Assistant:"')
    answers = [answer.strip(), rejected[len(prompt):].strip()]
    if not all(answers):
        raise Unusable("a response is empty")
    return prompt.strip("\n"), *answers
