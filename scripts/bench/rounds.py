"""Rounds: everybody has a turn in each, another one first, and what they are compared with in between."""

from dataclasses import dataclass

# Turns after which that is measured again: a machine may change its pace within seconds.
NEAR = 3


@dataclass(frozen=True)
class Compared:
    """By name, over the rounds: what was measured, and its ratio to the mean of what was before and behind it."""

    values: dict
    ratios: dict


def compared(bench, fleet, reference, names, measure, rounds, what):
    """Measures members of a fleet, and `reference` among them. `measure` is given the member that runs."""
    found = Compared({name: [] for name in (reference, *names)}, {name: [] for name in names})

    def turn(name):
        with fleet.turn(name) as member:
            value = measure(member)
        found.values[name].append(value)
        return value

    before = turn(reference)
    for number in range(rounds):
        first = number % len(names)
        order = [*names[first:], *names[:first]]
        for start in range(0, len(order), NEAR):
            between = {name: turn(name) for name in order[start:start + NEAR]}
            behind = turn(reference)
            for name, value in between.items():
                found.ratios[name].append(2 * value / (before + behind))
            before = behind
        bench.say("%s: round %d of %d" % (what, number + 1, rounds))
    return found
