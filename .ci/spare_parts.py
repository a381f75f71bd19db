"""Print a made-up log of spare parts that customers bought, to train on: CSV with user, item, timestamp."""

import random

MACHINES = [f"{kind} {size}" for kind in ("mower", "saw", "tractor", "pump", "drill", "mill") for size in (20, 30, 40)]
PARTS = ("blade", "belt", "filter", "plug", "bearing", "seal", "switch", "hose", "chain", "gear")

chance = random.Random(0)
print("user,item,timestamp")
for customer in range(300):
    machine, part = chance.choice(MACHINES), chance.randrange(len(PARTS))
    for day in range(chance.randint(8, 30)):
        # mostly the next part of the same machine wears out
        if chance.random() < 0.2:
            machine = chance.choice(MACHINES)
        part = (part + chance.choice((1, 1, 2))) % len(PARTS)
        print(f"C{customer:03},{machine} {PARTS[part]},{1_700_000_000 + 86_400 * day}")
