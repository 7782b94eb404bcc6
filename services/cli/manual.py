"""What `--help` says: each command in a sentence, then how it is used. Written for somebody who meets Orbweaver today."""

from __future__ import annotations

import msgspec

INTRODUCTION = """\
Gives pods real addresses on the real network, and tells who has which.

First steps: `orbweaver demo` shows the whole thing in a lab of its own. `orbweaver up --manifests DIR --detach` runs it here, \
`orbweaver cni install --dir /opt/cni/bin` lets a container runtime use it, `orbweaver status` and `orbweaver doctor` tell how it is.

Exit codes: 0 done, 1 no, 2 wrong usage. Tables are for people; programs take `-o json`."""

INTRODUCTION_CNI = "The plugin that container runtimes exec."


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """`name` with its group, `function` as `module:function`, `help` whose first line is its summary."""

    name: str
    function: str
    help: str


COMMANDS: tuple[Command, ...] = (
    Command(
        name="demo",
        function="services.cli.lifecycle:demo",
        help="""\
Runs the whole system in a lab of its own, shows it at work, and leaves nothing behind.

Two nodes, twenty pods, real links. Needs root.

For example:
    orbweaver demo""",
    ),
    Command(
        name="up",
        function="services.cli.lifecycle:up",
        help="""\
Starts a system on this machine and keeps it running.

The folder holds the objects that a cluster would: SpiderIPPool, Namespace, Pod and others, as YAML or JSON. A change of a file \
takes effect by itself. Needs root. Without --detach it runs until Ctrl-C.

For example:
    orbweaver up --manifests ./manifests --detach
    orbweaver up --manifests ./lab --state /tmp/lab --node n1=/run/netns/n1""",
    ),
    Command(
        name="down",
        function="services.cli.lifecycle:down",
        help="""\
Stops the system. Leases and attachments stay on disk for the next `up`, unless --purge removes them.

For example:
    orbweaver down""",
    ),
    Command(
        name="status",
        function="services.cli.lifecycle:status",
        help="""\
Shows which services run, where they listen, and what is not ready. Exit code 1 unless all is ready.

In a cluster it shows who answers on the bus, who leads, and on which servers the streams are.

For example:
    orbweaver status
    orbweaver status -o json""",
    ),
    Command(
        name="sync",
        function="services.cli.sync:sync",
        help="""\
Waits until the folder of manifests, as it is now, is in force. Names what is wrong with a file by line and field, and warns of \
what has no effect. Exit code 1 if anything is wrong.

For example:
    orbweaver sync && echo "all objects in force\"""",
    ),
    Command(
        name="get",
        function="services.cli.get:get",
        help="""\
Shows objects (spiderippools, pods, …), leases, attachments, events or traces.

KIND is what kubectl takes: sp, spiderippool, SpiderIPPool; short names: sp ss sr se smc scc po ns no cm. Without -n it shows \
all namespaces. Several kinds or names at once as kubectl takes them. `get traces ID` draws where the time of one attach went; the beginning of an id will do.

For example:
    orbweaver get sp
    orbweaver get spiderippool v4 -o yaml
    orbweaver get pods,nodes
    orbweaver get leases --pod prod/web-1
    orbweaver get events -n prod -o json
    orbweaver get traces 4bf92f35""",
    ),
    Command(
        name="explain",
        function="services.cli.explain:explain",
        help="""\
Tells which pools a pod would draw its addresses from now, and why each other pool is left out.

Exit code 1 if it would be refused.

For example:
    orbweaver explain pod prod/web-1""",
    ),
    Command(
        name="who",
        function="services.cli.who:who",
        help="""\
Tells who has an address, or why nobody has it: free, reserved, excluded, a gateway, in no pool.

Exit code 1 if nobody has it.

For example:
    orbweaver who 10.6.0.12""",
    ),
    Command(
        name="doctor",
        function="services.cli.doctor:doctor",
        help="""\
Looks for everything that is wrong or soon will be, and tells the way out of each. Exit code 1 if a check fails.

Compares leases with the attachments on the nodes, and those with the kernel. Changes nothing.

For example:
    orbweaver doctor""",
    ),
    Command(
        name="gc",
        function="services.cli.gc:gc",
        help="""\
Collects the addresses of pods that are gone, which happens by itself all the time; with --dry-run tells of each lease whether it \
stays, and why.

Verdicts: keep, release, detach (its node is asked to undo the attachment first), quarantine (released, and given to nobody before \
its node can be reached). The switches are in the ConfigMap spiderpool-conf, key conf.yml, below `gc`. Exit code 1 if nothing can \
be judged now.

For example:
    orbweaver gc --dry-run
    orbweaver gc --dry-run -o json
    orbweaver gc""",
    ),
    Command(
        name="validate",
        function="services.cli.validate:validate",
        help="""\
Judges an object as the admission webhook would: as create, or as update where the object is stored.

Prints JSON with all errors at once, and with the object as it would be stored. Without a running system it judges the object alone. \
Exit code 1 if it is not valid.

For example:
    orbweaver validate -f pool.yaml
    kubectl get sp v4 -o yaml | orbweaver validate -f -
    orbweaver validate --delete SpiderIPPool/v4""",
    ),
    Command(
        name="cni install",
        function="services.cli.install:install",
        help="""\
Puts the plugin, its configuration and its credential where a container runtime looks.

Writes it under the names orbweaver, spiderpool, coordinator and ifacer. Run it again after the credential changed.

For example:
    orbweaver cni install --dir /opt/cni/bin
    orbweaver cni install --dir /opt/cni/bin --node n1 \\
        --conflist /etc/cni/net.d/10-underlay.conflist --multi-network""",
    ),
    Command(
        name="failpoints",
        function="services.cli.failpoints:failpoints",
        help="""\
Lists the steps at which a service can be made to die, to stall or to lose a message, for tests of what must survive.

A service takes the variable ORBWEAVER_FAILPOINT=NAME[:N][:ACTION][,…] of its environment: at the N-th pass of the step it is killed \
(`kill`, the default), stalled (`delay=50ms`) or leaves out what it sends there (`drop`, where DROPS is true). In a system that \
`up` runs, the same text in STATE/failpoint/INSTANCE is given to the next process of that instance, and to no later one.

For example:
    orbweaver failpoints
    echo agent.intent.journaled:3 >STATE/failpoint/agent-n1""",
    ),
    Command(
        name="version",
        function="services.cli.lifecycle:version",
        help="Prints the version.",
    ),
)
