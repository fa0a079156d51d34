"""The names by which controller and agents know each other's certificates. Pure; both sides read them from here.

An agent's certificate names, besides the node's name and addresses, `NAME.node.wherry`, which the join handler gives to
that node only: the controller asks TLS for that name, so that whatever address a Node reports, nobody but that node
answers. The controller shows itself by an identity of its own, which agents obey and the API server gives no rights.
"""

from __future__ import annotations

NODE_DOMAIN = "node.wherry"
AGENT_CLIENT_NAME = "kube-apiserver-kubelet-client"
AGENT_CLIENT_GROUP = "wherry:agent-clients"
"""Only the CA's keeper issues certificates with it: requests through the API are refused it."""


def node_host(node: str) -> str:
    """What a node's server certificate has to name."""
    return f"{node}.{NODE_DOMAIN}"
