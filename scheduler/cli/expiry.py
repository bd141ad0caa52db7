"""Certificates that are about to expire, as `scheduler status` and `scheduler pki list` warn of them."""

from __future__ import annotations

from pathlib import Path

from proxy_worker.contract.errors import ProxyfleetError
from scheduler.cli.printing import moment
from scheduler.pki.authority import Authority, NoAuthorityError
from scheduler.pki.certificates import now_utc


def expiry_warnings(pki_dir: Path) -> tuple[str, ...]:
    """A sentence for each certificate in use whose end is near, the authority's own included; none without one."""
    try:
        authority = Authority(pki_dir)
        issued = authority.issued()
    except NoAuthorityError:
        return ()
    except ProxyfleetError as error:
        return (str(error),)
    now = now_utc()
    warnings = [
        f"certificate of {one.peer.role} {one.peer.name} {'expired' if one.until <= now else 'expires'} "
        f"{moment(one.until.timestamp())}; renew it with `scheduler pki renew` or `scheduler redis configure`"
        for one in issued
        if not one.replaced and one.state(now) in {"expires soon", "expired"}
    ]
    if authority.expires_soon(now):
        until = moment(authority.certificate.not_valid_after_utc.timestamp())
        warnings.append(f"the fleet's authority expires {until}; make a new one in time: move {pki_dir} away")
    return tuple(warnings)
