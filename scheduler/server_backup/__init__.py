"""The backup server's own backup: its database, configuration, keys and secrets, in a repository beside the disks.

Nouns: an archive (`archive`), one file of records that is sealed (`sealing`) with a passphrase as it is written;
the tables (`tables`) as rows that any database takes; making (`making`) an archive; the shelf (`shelf`), which puts
archives into a repository and gets them back by calling `proxy-worker`; keeping (`keeping`), all of one backup;
restoring (`restoring`) a server; the nightly backup (`nightly`) that `scheduler serve` starts. It must not know how
repositories are made, nor how runs proceed.
"""
