"""The fleet's own authority: certificates for every peer that speaks TLS, made and revoked on the backup server.

Nouns: the *authority* (a key and a certificate in `state_dir/pki`, its key for the scheduler's user alone); a
*peer* (who a certificate is for: its name, role, site and the addresses it answers at); an *issued* certificate
(what the authority remembers of one; it never keeps a peer's key); the *trust* file (`ca.pem`: the authority's
certificate and its list of revoked ones, which is what every peer verifies with).
It must not know what a peer does with its certificate, nor open the database or the ledger.
"""
