"""A repository server's gateway: offers local repositories over the link, each peer allowed what its role allows.

Nouns: an *offer* (a folder under a name, and who may use it), *rights* (what a role may do to which objects), the
*gateway* (the methods that the link's server calls). The store below it stays the one place that knows files.
It must not know keys, nor look into objects: a repository server can't read what it keeps.
"""
