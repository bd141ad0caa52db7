"""The wire between data movers: gRPC, with both ends certified by the fleet's own authority.

Nouns: an *identity* (the files that show and verify certificates), a *peer* (who a certificate says is at the other
end), a *frame* (up to a MiB of raw bytes with its checksum), a
*refusal* (an error of the other end, as it travels). Bulk data crosses as frames; the rest as small messages.
It must not know what a repository is, nor what the bytes mean.
"""
