"""The dispatch policy at scale, on a simulated clock: `make simulate`.

Nouns: a workload (proxies and disks drawn at random, always the same for a seed), mishaps (what goes wrong), a
simulation (a heap of events that drives the function `scheduler serve` decides with), an outcome (when each disk
began and ended), figures (what an outcome comes to, beside its bound). Nothing here decides where a disk goes.
"""
