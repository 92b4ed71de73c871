"""The known mistakes of mistakes.txt: a right line of a function and the wrong one in its place."""

from collections import namedtuple

from course.surgery import cut, get_function, read_records, replace_once

Mistake = namedtuple("Mistake", "hole right wrong says")
MISTAKES = [Mistake(hole, "\n".join(lines["-"]), "\n".join(lines["+"]), says)
            for (hole, says), lines in read_records("mistakes.txt")]


def make_mistake(mistake, source):
    """The text of the function with the mistake in its body, from its solved file."""
    above, body, _ = cut(get_function(source, mistake.hole), mistake.hole)
    body = replace_once("\n".join(body) + "\n", mistake.right, mistake.wrong)
    return "\n".join(above) + "\n" + body
