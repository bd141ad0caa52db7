"""What the scheduler remembers, in SQL: what an administrator declared, what vCenters showed, and what happened.

Nouns: a declaration (`declared`), the catalogue of vCenters' VMs (`scanned`), a record (`recorded`), the state
(`store`): an engine with its migrations applied, whose transactions turn the database's failures into errors a
person can act on; the lock (`lock`) that only one scheduler holds, or leadership (`leadership`) where several share
a PostgreSQL database; asking (`asking`): how a command leaves work for `scheduler serve`. It must not know how runs
proceed, nor Redis, nor Celery.
"""
