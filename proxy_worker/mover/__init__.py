"""The data mover: one disk from a source into a repository, or from a repository onto a target.

Nouns: a *plan* says which blocks of which segments must be read; a *batch* is a run of neighbouring blocks in one
reused *buffer*; the *pipeline* is the threads that read and transform batches; *delivery* stores what comes out,
completes segments and makes *checkpoints*; a *control* is whoever may pause or stop the work, and hears of its
progress. `backup.back_up_disk` and `restore.restore_disk` are the ways in.

It must not know Redis, leases, Celery, the command line, or what kind of source or store it works with.
"""
