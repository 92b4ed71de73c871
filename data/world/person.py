"""You as the labeler: compare.py --me asks which of two answers is better."""

import functools
import sys


class Person:
    name = "person"

    def rank(self, prompt, answers, rng):
        """[(answer, ended)] -> indices, best first. Asks about as many pairs as sorting needs."""
        print(f"\n{prompt.text}")

        def compare(i, j):
            print(f"  1  {answers[i][0]}\n  2  {answers[j][0]}")
            key = ""
            while key not in ("1", "2"):
                try:
                    key = input("Which answer is better, 1 or 2? ").strip()
                except (EOFError, UnicodeDecodeError):
                    sys.exit("\nstopped; the labels so far are saved")
            return -1 if key == "1" else 1

        # shuffled, because the first answer is always the demonstration
        order = rng.sample(range(len(answers)), len(answers))
        return sorted(order, key=functools.cmp_to_key(compare))
