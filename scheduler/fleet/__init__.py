"""The fleet as an administrator declares it: sites, vCenters, datastores, repositories, proxies, VMs and jobs.

A *declaration* is one of these with a name; a *fleet* is all of them together, as `fleet.toml` says or as the
scheduler's database holds it. *Applying* a file makes the database equal to it; *exporting* is the way back.
Everything here is about what is wanted. It must not know what runs, which proxies live, or any secret.
"""
