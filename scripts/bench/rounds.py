"""Rounds: everybody has a turn in each, another one first."""


def interleaved(fleet, turns, rounds, say, what):
    """Measures `turns`, a mapping of keys to (member, measure), in each round; gives the values by key, a list over the rounds."""
    values = {key: [] for key in turns}
    keys = list(turns)
    for number in range(rounds):
        first = number % len(keys)
        for key in keys[first:] + keys[:first]:
            member, measure = turns[key]
            with fleet.turn(member) as running:
                values[key].append(measure(running))
        say("%s: round %d of %d" % (what, number + 1, rounds))
    return values
