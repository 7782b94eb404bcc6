"""The API server is away, or has forgotten: pods attach all the same, and no address is given twice."""

from __future__ import annotations

from pathlib import Path

from shared.contracts.query import AttachmentView
from tests.cluster.adversity.outage import hold_through
from tests.support.kube_cluster import Cluster, await_true
from tests.support.kube_space import Space, assert_distinct
from tests.support.kube_system import System
from tests.support.kube_workload import deployment

OUTAGE_S = 60.0


def test_pods_attach_and_detach_without_an_api_server(tmp_path: Path) -> None:
    assert hold_through(tmp_path / "cluster", OUTAGE_S) >= 8


def test_an_older_etcd_gives_no_address_twice(tmp_path: Path) -> None:
    """The API server forgets pods that run; what they hold stays theirs until their nodes have let go of it."""
    with Cluster(tmp_path / "cluster") as cluster, System(cluster) as system:
        space = Space(cluster, system)
        space.apply(deployment("old", 4))
        space.await_pods(4)
        cluster.server.save(tmp_path / "backup")
        space.apply(deployment("forgotten", 6))
        space.await_pods(10)
        forgotten = [name for name in space.addresses() if name.startswith("forgotten")]
        cluster.server.restore(tmp_path / "backup")
        # What a restore asks of everybody who keeps a watch: controllers, scheduler, kubelets. Ours are left alone.
        for program in (*cluster.server.others, *(node.kubelet for node in cluster.nodes)):
            program.stop(kill=True)
            program.start()
        space.apply(deployment("new", 12))

        def settled() -> bool:
            live = system.live()
            assert_distinct({key: _addresses(views) for key, views in live.items()})
            new = [key for key in live if key.startswith(f"{space.name}/new")]
            return len(new) == 12 and not any(f"{space.name}/{name}" in live for name in forgotten)

        await_true("new pods run and forgotten ones are gone", settled, 120)
        space.await_pods(16)
        assert_distinct(space.addresses())
        assert space.unreachable() == []
        space.await_leases_of(lambda: set(space.addresses()))
        space.await_status()
        assert system.failures() == []
        assert system.ask.allocator().violations == ()


def _addresses(views: tuple[AttachmentView, ...]) -> list[str]:
    return [address for view in views for address in view.addresses]
