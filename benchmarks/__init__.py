"""Speed, size and memory, compared with peers in the same run: `python -m benchmarks`, or `make bench`.

A *row* is one promise with its limit; a *round* measures every contender once, one after the other, so that a
noisy moment hits them all; a row is judged by the median of the rounds' ratios. The *bound* is what the stages
of a backup cost on the same blocks when nothing else is in the way. Everything is made in `.bench/`.
`python -m benchmarks.repository` (`make bench-repository`) does the same for what is done with a repository that is
there: checks, collections, restores, reads through NBD.
"""
