"""An NBD client that reads: fixed newstyle, structured replies, block status, many requests in flight, TLS.

Nouns: a URI says where an export is; the handshake agrees on what is spoken; a connection carries requests;
`NbdSource` is an export as a disk, over one or several connections. Source of the format: the NBD protocol
(doc/proto.md and doc/uri.md of the NetworkBlockDevice project).

Must not know: who started the server, datastores, VMDKs.
"""
