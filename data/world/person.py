"""You as the labeler: compare.py --me asks which of two answers is better."""

import functools


class Person:
    name = "person"

    def rank(self, prompt, answers, rng):
        """[(answer, ended)] -> indices, best first, by asking about pairs of them."""
        print(f"\n{prompt.text}")

        def compare(i, j):
            print(f"  1  {answers[i][0]}\n  2  {answers[j][0]}")
            key = ""
            while key not in ("1", "2"):
                key = input("which is better, 1 or 2? ").strip()
            return -1 if key == "1" else 1
        shuffled = rng.sample(range(len(answers)), len(answers))   # the first is a demonstration
        return sorted(shuffled, key=functools.cmp_to_key(compare))
