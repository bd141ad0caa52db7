"""What the scheduler asks vCenters to do, beside its loop.

Nouns: an account (where a vCenter is and who logs in), a step (one idempotent thing done there: a scan, a snapshot,
a removal, and whatever else registers its kind), a kind of step (its name, its request, the function that performs
it), the executor (threads and a bounded number of sessions per vCenter), an outcome (an answer or a named failure).

A step is journalled before it is started, and started again when an earlier life of the scheduler left it so:
performing one twice must come to the same. It must not know runs, restores, the database, nor the ledger: what an
outcome means is for whoever opened the step.
"""
