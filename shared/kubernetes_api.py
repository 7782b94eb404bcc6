"""A connection to the Kubernetes API: by a kubeconfig, or from inside a cluster.

Owns credentials and how the library's client is made. Must not know what is asked: each service has a client of its own on it.
"""

from __future__ import annotations

from typing import Any

from kubernetes.aio import config as kube_config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException


async def open_api(kubeconfig: str, connections_max: int | None = None) -> ApiClient:
    """The library's client; None leaves it its own limit of connections. `kubeconfig` is a file; empty: from inside a cluster. Raises ValueError that names what is missing."""
    configuration: Any = Configuration()
    try:
        if kubeconfig:
            await kube_config.load_kube_config(  # pyright: ignore[reportUnknownMemberType]
                config_file=kubeconfig, client_configuration=configuration
            )
        else:
            kube_config.load_incluster_config(  # pyright: ignore[reportUnknownMemberType]
                client_configuration=configuration
            )
    except ConfigException as error:
        where = f"kubeconfig {kubeconfig}" if kubeconfig else "in-cluster configuration"
        raise ValueError(f"{where}: {error}") from None
    if connections_max is not None:
        configuration.connection_pool_maxsize = connections_max
    # an API server is reached directly, whatever proxy the environment names for other things
    configuration.client_session_kwargs = {"trust_env": False}
    return ApiClient(configuration)
