"""`scheduler proxy add`: a new proxy, asked for step by step or said by options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scheduler.cli.arguments import AsJson, Site
from scheduler.cli.proxy_deploy import DEFAULT_WAIT_S, Wait
from scheduler.fleet.models import ModeChoice

if TYPE_CHECKING:
    from scheduler.cli.deploying import Opened
    from scheduler.cli.proxy_plan import ProxyPlan


def add(
    name: Annotated[str | None, typer.Argument(metavar="[PROXY]", help="The new proxy's name.")] = None,
    *,
    host: Annotated[str | None, typer.Option(metavar="HOST", help="Name or address of its machine.")] = None,
    port: Annotated[int, typer.Option(metavar="PORT", help="Its SSH port.")] = 22,
    user: Annotated[
        str, typer.Option(metavar="USER", help="Who logs in: root, or one whom sudo asks no password.")
    ] = "root",
    ssh_credential: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The secret NAME.ssh-key or NAME.ssh-password that logs in; without, the SSH agent and your own "
            "keys do.",
        ),
    ] = None,
    ssh_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A private key, which is kept as the secret PROXY.ssh-key.")
    ] = None,
    host_key: Annotated[
        str | None, typer.Option(metavar="SHA256:…", help="The fingerprint of its SSH host key, which is pinned.")
    ] = None,
    description: Annotated[str, typer.Option(metavar="TEXT", help="What people should know of it.")] = "",
    site: Site = "primary",
    transport_mode: Annotated[
        ModeChoice, typer.Option(help="The only mode it may use, or the best there is.")
    ] = ModeChoice.AUTOMATIC,
    datastore: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=WAY]",
            help="A datastore it may read, and how it is reached: a folder, nfs://…, nbd://… or san. Repeatable. "
            "Without it, all of its site that are found as folders there.",
        ),
    ] = None,
    max_concurrent_tasks: Annotated[
        int | None,
        typer.Option(metavar="COUNT", min=1, help="Its slots; unless told, as many as it bears."),
    ] = None,
    failover_to_network: Annotated[
        bool, typer.Option(help="Whether disks that another mode can't read are read over the network.")
    ] = True,
    encryption_to_host: Annotated[
        bool, typer.Option(help="Whether network mode must be encrypted up to the host.")
    ] = False,
    instant_restore: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NETWORK",
            help="A network of hosts' NFS traffic, 10.1.2.0/24, to serve restore points to for VMs to run from; "
            "may be repeated.",
        ),
    ] = None,
    credential: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A secret that it gets; may be repeated. Those it needs unless told."),
    ] = None,
    redis_url: Annotated[str | None, typer.Option(metavar="URL", help="Where Redis is as seen from there.")] = None,
    install_dir: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="One folder for everything; needed if USER may not become root."),
    ] = None,
    wait: Wait = DEFAULT_WAIT_S,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing: options say it all.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a proxy on a machine over SSH. It is checked, gets everything installed, and the proxy is started and
    seen to register.

    Asks step by step in a terminal; with --yes, or without a terminal, options say everything. The machine needs
    Linux (x86_64 or arm64) and Python 3.11, and no internet. Windows servers can't be proxies.

    \b
    Examples:
      scheduler proxy add
      scheduler proxy add proxy-1 --host 10.0.0.5 --ssh-key ~/.ssh/proxies
      scheduler proxy add proxy-1 --host 10.0.0.5 --host-key SHA256:… --datastore ds-12=/mnt/ds-12 --yes
    """
    from scheduler.cli.deploying import asks, opened_for_deploying  # noqa: PLC0415 - slow to load
    from scheduler.cli.proxy_plan import ProxyPlan, checked_server, require_names  # noqa: PLC0415 - as above

    asking = asks() and not yes
    if not asking and (name is None or host is None):
        raise typer.BadParameter("without a terminal, or with --yes, give a name and --host")
    if ssh_key is not None and ssh_credential is not None:
        raise typer.BadParameter("give --ssh-key or --ssh-credential, not both")
    require_names("the proxy", name)
    require_names("--ssh-credential", ssh_credential)
    require_names("--credential", *credential or ())
    keys = {
        "host": host or "localhost",
        "port": port,
        "user": user,
        "credential": ssh_credential,
        "host_key": host_key,
        "install_dir": install_dir,
        "redis_url": redis_url,
        "credentials": credential,
        "failover_to_network": failover_to_network,
        "encryption_to_host": encryption_to_host,
    }
    plan = ProxyPlan(
        name or "",
        site,
        checked_server(keys),
        description,
        transport_mode,
        max_concurrent_tasks=max_concurrent_tasks,
    )
    with opened_for_deploying() as opened:
        if asking:
            plan = _asked(opened, plan, host, has_key=ssh_key is not None)
        if instant_restore:
            plan = plan.on(instant_restore={"host": plan.server.host, "clients": instant_restore})
        _add(opened, plan, datastore, ssh_key, asking=asking, wait=wait, as_json=as_json)


def _asked(opened: Opened, plan: ProxyPlan, host: str | None, *, has_key: bool) -> ProxyPlan:
    """The plan with its machine as people answer."""
    from scheduler.cli.proxy_wizard import ask_server  # noqa: PLC0415 - slow to load
    from scheduler.state.models import Proxy  # noqa: PLC0415 - as above

    with opened.watch.state.read() as session:
        taken = {proxy.name for proxy in session.query(Proxy)}
    return ask_server(plan, host, taken, None if has_key else opened.configuration.secrets_dir)


def _add(
    opened: Opened,
    plan: ProxyPlan,
    chosen: list[str] | None,
    ssh_key: Path | None,
    *,
    asking: bool,
    wait: float,
    as_json: bool,
) -> None:
    """Complete the plan with what the machine shows, declare it, and deploy it."""
    from scheduler.cli.deploying import StepPrinter, confirmed_host_key, deploy_one  # noqa: PLC0415 - slow to load
    from scheduler.cli.printing import note, print_json  # noqa: PLC0415 - as above
    from scheduler.cli.proxy_modes import in_a_possible_mode, modes_denied_on  # noqa: PLC0415 - as above
    from scheduler.cli.ssh_key_file import kept, on_trial  # noqa: PLC0415 - as above
    from scheduler.deployment.deploying import Waiting  # noqa: PLC0415 - as above
    from scheduler.deployment.rolling import Keeping  # noqa: PLC0415 - as above
    from scheduler.fleet.editing import declare, require_declarable  # noqa: PLC0415 - as above

    plan = in_a_possible_mode(plan, modes_denied_on(opened.watch.state, plan.server.host))
    with opened.watch.state.read() as session:
        require_declarable(session, "proxy", plan.declaration())
    secrets_dir = opened.configuration.secrets_dir
    with on_trial(ssh_key, plan.name, secrets_dir) as login_dir:
        if ssh_key is not None:
            plan = plan.on(credential=plan.name)
        if asking and plan.server.host_key is None:
            plan = plan.on(**confirmed_host_key(plan.server).model_dump(include={"host_key"}))
        plan = _completed(opened, plan, chosen, login_dir, asking=asking)
    with kept(ssh_key, plan.name, secrets_dir), opened.watch.state.write() as session:
        declare(session, "proxy", plan.declaration())
    try:
        done = deploy_one(opened, plan.name, Waiting(wait), Keeping(opened.watch, 0), StepPrinter())
    except BaseException:
        note(f"It is declared. `scheduler proxy deploy {plan.name}` goes on where this ended.")
        raise
    if as_json:
        print_json({**done, "host": plan.server.host, "host_key": plan.server.host_key})
    note(
        f"Proxy {plan.name} runs on {plan.server.address}; `scheduler proxy show {plan.name}` says what it reaches."
    )


def _completed(
    opened: Opened, plan: ProxyPlan, chosen: list[str] | None, login_dir: Path, *, asking: bool
) -> ProxyPlan:
    """The plan with datastores, slots and network as the machine allows them, and as people answer.

    What logs in is in `login_dir`.
    """
    from scheduler.cli.printing import note  # noqa: PLC0415 - slow to load
    from scheduler.cli.proxy_modes import modes_denied_on  # noqa: PLC0415 - as above
    from scheduler.cli.proxy_plan import inventory, too_many  # noqa: PLC0415 - as above
    from scheduler.cli.proxy_secrets import in_words, not_reading, warnings  # noqa: PLC0415 - as above
    from scheduler.cli.proxy_wizard import (  # noqa: PLC0415 - as above
        ask_datastores,
        ask_network,
        ask_slots,
        review,
        show_traffic_rules,
        with_datastores,
    )
    from scheduler.cli.traffic_hint import tell_traffic_rules  # noqa: PLC0415 - as above
    from scheduler.deployment.given import credential_files, reached_by  # noqa: PLC0415 - as above
    from scheduler.deployment.ssh import Machine  # noqa: PLC0415 - as above
    from scheduler.deployment.survey import (  # noqa: PLC0415 - as above
        Found,
        agent_on,
        look,
        require_fit,
        require_reach,
        system_of,
    )

    names = inventory(opened.watch.state, plan.site)
    with Machine(plan.server, login_dir) as machine:
        system = system_of(machine)
        agent = agent_on(machine, plan.name, system)

        def looked(planned: ProxyPlan) -> Found:
            url = planned.server.redis_url or opened.configuration.redis.url
            return look(agent, planned.server, url, names)

        found = looked(plan)
        require_fit(plan.server, system, found)
        if asking:
            note(f"{plan.server.address}: {system.description}")
            require_reach(plan.server, found)
            denied = modes_denied_on(opened.watch.state, plan.server.host)
            plan = ask_datastores(plan, found, names, looked, denied)
            plan = ask_network(ask_slots(plan, found), opened.configuration, opened.watch.state)
            with opened.watch.state.read() as session:
                reached = reached_by(session, plan.name, plan.site)
            files = credential_files(opened.configuration, plan.server.credentials, reached)
            show_traffic_rules(opened.watch.state, plan.server.host)
            review(plan, system.description, in_words(files))
            return plan
        tell_traffic_rules(opened.watch.state, plan.server.host)
        plan = with_datastores(plan, chosen, found, names)
        require_reach(plan.server, looked(plan))
        with opened.watch.state.read() as session:
            reached = reached_by(session, plan.name, plan.site)
        given, left_out = not_reading(opened.configuration, plan.server.credentials, reached)
        plan = plan.on(credentials=given)
        files = credential_files(opened.configuration, given, reached)
        note(f"Proxy {plan.name} gets the secrets: {', '.join(in_words(files)) or 'none'}.")
        for told in warnings(files, left_out):
            note(f"warning: {told}.")
        warning = too_many(plan.max_concurrent_tasks or 0, found)
        if warning is not None:
            note(f"warning: {warning}.")
        return plan
