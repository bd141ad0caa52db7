"""What a proxy can be asked to do, and what it answers.

The only vocabulary that the scheduler and the proxies share: names, task specifications, results, errors
and signatures, all immutable. It must not know how anything is done: no Redis, no Celery, no files.
"""
